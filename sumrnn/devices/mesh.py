"""The placement of seeds and shards on a mesh of devices, and functions compiled for it."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sumrnn.config import Config
from sumrnn.devices import compiler, machine
from sumrnn.errors import invalid, require
from sumrnn.fields import Range
from sumrnn.task import log_pmf_table
from sumrnn.train import evaluation
from sumrnn.train.shards import SHARD, Placement

SEED = "seed"
"""The mesh's axis of devices that have the seeds of a wave; the other one is `SHARD`."""
MAX_DEVICES = 4_096
"""The largest number of CPU devices of a process."""
MEMORY_SHARE = 0.7
"""Share of an accelerator's free memory that a wave may take."""
TRUSTED_BYTES = 64 << 20
"""Bytes of memory up to which a bound is enough; above it the program is compiled to know."""

Function = Callable[..., Any]


def use_cores(devices: int | None = None) -> None:
    """Makes CPU cores devices of JAX; it must be called before anything is computed.

    There are `devices` of them; None: as many as cores that this process may use.  Raises
    `UserError` unless these are 1 to `MAX_DEVICES`, or if JAX has another number of CPU devices
    already.
    """
    if devices is not None:
        Range(1, MAX_DEVICES).require("devices", devices)
    count = devices or machine.core_count()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun, possibly with as many.
        present = jax.local_device_count("cpu")
        if present != count:
            allowed = f"asked for before JAX computes anything; it has begun with {present}"
            raise invalid("devices", count, allowed) from None


def all_devices() -> list[jax.Device]:
    """All devices of this process.

    Raises `UserError` if the environment asks for a platform that JAX does not have.
    """
    try:
        return list(jax.devices())
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        if not platforms:
            raise
        raise invalid(
            "JAX_PLATFORMS", platforms, f"platforms that JAX has here ({error})"
        ) from None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The placement of the seeds of a wave on devices."""

    mesh: Mesh
    """Devices along the axes `SEED` and `SHARD`."""
    per_device: int = 1
    """The number of a wave's seeds on each device; 1 unless they are computed at once."""
    at_once: bool = False
    """Whether a device computes its seeds, and each one's shards, at once (under `vmap`)."""

    @property
    def rows(self) -> int:
        """The number of devices along the axis `SEED`."""
        return int(self.mesh.shape[SEED])

    @property
    def wave_size(self) -> int:
        """The number of seeds of a wave."""
        return self.rows * self.per_device


def plan(seeds: int, shards: int, per_device: int = 1, *, rows: int | None = None) -> Plan:
    """Places so many seeds on all devices, and the shards of each one's batches on those left over.

    A GPU or TPU takes `per_device` seeds at once.  A CPU device takes one at a time, whatever
    `per_device` is: that was measured to be faster, and a run's bits then do not depend on its
    neighbours.  `rows` bounds the number of devices along the axis `SEED`.
    """
    devices = all_devices()
    on_cpu = devices[0].platform == "cpu"
    rows = min(seeds, len(devices) if rows is None else rows)
    columns = max(n for n in range(1, len(devices) // rows + 1) if shards % n == 0)
    grid = np.array(devices[: rows * columns]).reshape(rows, columns)
    per_device = 1 if on_cpu else min(per_device, -(-seeds // rows))
    return Plan(Mesh(grid, (SEED, SHARD)), per_device, at_once=not on_cpu)


class CompiledFunctions:
    """The `run.Functions` of a config, compiled for the seeds of a wave on the devices of a plan.

    Raises `UserError` if JAX is set not to compile.
    """

    def __init__(self, config: Config, plan: Plan) -> None:
        off = bool(jax.config.values["jax_disable_jit"])
        require(not off, "jax_disable_jit", off, "False; `sumrnn.fit` alone can do without")
        self.plan = plan
        self.sharding = NamedSharding(plan.mesh, PartitionSpec(SEED))
        placement = Placement(int(plan.mesh.shape[SHARD]), plan.at_once)
        functions = compiler.functions(config.canonical, placement)
        seeds = jax.ShapeDtypeStruct((plan.wave_size, 3), np.uint32)
        number = jax.ShapeDtypeStruct((plan.wave_size,), np.uint32)
        platform = plan.mesh.devices.flat[0].platform
        begin, epoch, predict, self._draw_options = compiler.options(platform)
        self.begin, (data, state, shuffle) = self._compile(functions.begin, begin, seeds)
        self.epoch, _ = self._compile(functions.epoch, epoch, state, shuffle, data.train, number)
        self.predict, _ = self._compile(functions.predict, predict, state.params, data, number)
        self._draw, self._task, self._number = functions.draw, config.task, number

    @functools.cached_property
    def draw(self) -> Function:
        """`evaluation.draw` for every seed of a wave, by one table of probabilities for all.

        It is compiled when it is first needed, at the end of a run.
        """
        table = jax.ShapeDtypeStruct(self.log_pmfs.shape, np.float32)
        sums = jax.ShapeDtypeStruct((self.plan.wave_size, self._task.size), np.int32)
        return self._compile(self._draw, self._draw_options, table, sums, self._number, shared=1)[0]

    @functools.cached_property
    def log_pmfs(self) -> np.ndarray:
        """The table of `task.log_pmf_table`, float32, on the host."""
        return log_pmf_table(self._task)

    @property
    def replicated_log_pmfs(self) -> jax.Array:
        """The table of `task.log_pmf_table`, float32, on every device."""
        place = NamedSharding(self.plan.mesh, PartitionSpec())
        with jax.transfer_guard("allow"):  # It is meant.
            return jax.make_array_from_callback(
                self.log_pmfs.shape, place, lambda index: self.log_pmfs[index]
            )

    def _compile(
        self, function: Function, options: dict[str, Any] | None, *shapes: Any, shared: int = 0
    ) -> tuple[Function, Any]:
        """A function compiled for arrays with a leading axis of seeds, and its results' shapes.

        The first `shared` arrays have no such axis, and are the same on every device.
        """

        def local(*arguments: Any) -> Any:
            common, per_seed = arguments[:shared], arguments[shared:]
            if self.plan.at_once:
                return jax.vmap(functools.partial(function, *common))(*per_seed)
            outputs = function(*common, *jax.tree.map(lambda x: x[0], per_seed))
            return jax.tree.map(lambda x: x[None], outputs)

        by_seed, replicated = PartitionSpec(SEED), PartitionSpec()
        specs = (replicated,) * shared + (by_seed,) * (len(shapes) - shared)
        mapped = jax.shard_map(
            local, mesh=self.plan.mesh, in_specs=specs, out_specs=by_seed, check_vma=False
        )
        with compiler.pinned():
            lowered = jax.jit(
                mapped,
                in_shardings=tuple(NamedSharding(self.plan.mesh, spec) for spec in specs),
                out_shardings=self.sharding,
                compiler_options=options,
            ).lower(*shapes)
            compiled = lowered.compile()
        machine.trim_heap()
        return compiled, lowered.out_info

    @functools.cached_property
    def bytes_needed(self) -> int:
        """The largest number of bytes of memory that a wave takes, its exact evaluation included.

        It is memory of one device; on CPU, whose devices share it, of the machine.
        """
        sharing = 1 if self.plan.at_once else len(self.plan.mesh.local_devices)
        peak = max(map(compiler.peak_bytes, (self.begin, self.epoch, self.predict)))
        if evaluation.is_evaluated(self._task):  # It comes beside data and state.
            run_bytes, draw_bytes = compiler.output_bytes(self.begin), self.max_draw_bytes
            if draw_bytes > TRUSTED_BYTES:
                draw_bytes = compiler.peak_bytes(self.draw)
            peak = max(peak, run_bytes + max(draw_bytes, compiler.peak_bytes(self.predict)))
        return sharing * peak

    @property
    def max_draw_bytes(self) -> int:
        """An upper bound of the bytes that `draw` takes on a device, known without compiling it."""
        size, length, width = self._task.size, self._task.length, self._task.high - self._task.low
        series = size * (16 * (width + 1) + 4 * length + 64)
        return 8 * self._task.pmf_table_size + self.plan.per_device * series


@functools.lru_cache(maxsize=16)
def _compiled_functions(config: Config, plan: Plan) -> CompiledFunctions:
    return CompiledFunctions(config, plan)


def prepare(config: Config, seeds: int, per_device: int | None = None) -> CompiledFunctions:
    """Compiles the functions of so many runs for all devices, or for as many as memory allows.

    `per_device` is the number of seeds of a wave on each GPU or TPU; None: as many as its memory
    holds.  Raises `UserError` if it is not positive, if memory does not hold so many runs on a
    device, or if it does not hold a single one.
    """
    if per_device is not None and per_device < 1:
        raise invalid("per_device", per_device, "at least 1")
    config, shards = config.canonical, config.train.batch_shards
    compiled = _compiled_functions(config, plan(seeds, shards, per_device or 1))
    available_bytes = machine.available_bytes(jax.local_devices()[0])
    if compiled.plan.at_once and per_device is None:
        fitting = max(1, int(MEMORY_SHARE * available_bytes / compiled.bytes_needed))
        compiled = _compiled_functions(config, plan(seeds, shards, fitting))
    while compiled.bytes_needed > available_bytes:
        if per_device is not None and compiled.plan.per_device > 1:
            available, needed = available_bytes / 2**30, compiled.bytes_needed / 2**30
            allowed = f"fewer seeds: a device has {available:,.1f} GiB, they need {needed:,.1f}"
            raise invalid("per_device", per_device, allowed)
        if compiled.plan.rows == 1:
            raise machine.too_large(config, compiled.bytes_needed, available_bytes)
        compiled = _compiled_functions(config, plan(seeds, shards, rows=compiled.plan.rows // 2))
    return compiled
