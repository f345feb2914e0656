"""Seeds and shards on devices: a plan of a mesh, and the functions of runs compiled for it."""

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
"""The mesh's axis of runs; the other one is `SHARD`, the parts of each run's batches."""
MAX_DEVICES = 4_096
"""CPU devices of a process."""
MEMORY_SHARE = 0.7
"""Share of an accelerator's free memory that a wave may take."""
BOUND = 64 << 20
"""Bytes of memory up to which a bound is believed, instead of compiling the program to know."""

Function = Callable[..., Any]


def use_cores(devices: int | None = None) -> None:
    """Makes CPU cores into devices; call it before anything is computed.

    None: one device for each core that this process may use.  Raises `UserError` unless there are
    at least 1 and at most `MAX_DEVICES`, or if JAX has other CPU devices already.
    """
    if devices is not None:
        Range(1, MAX_DEVICES).require("devices", devices)
    count = devices or machine.core_count()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun; it may have begun alike.
        begun = jax.local_device_count("cpu")
        if begun != count:
            late = f"asked for before JAX computes anything; it has begun with {begun}"
            raise invalid("devices", count, late) from None


def all_devices() -> list[jax.Device]:
    """The devices of this process.

    Raises `UserError` if the environment asks for a platform that is not here.
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
    """Seeds of a wave that a device takes; 1 unless they are computed at once."""
    at_once: bool = False
    """Whether a device computes its seeds, and each one's shards, at once (under `vmap`)."""

    @property
    def rows(self) -> int:
        """The number of devices along `SEED`."""
        return int(self.mesh.shape[SEED])

    @property
    def wave(self) -> int:
        """The number of seeds of a wave."""
        return self.rows * self.per_device


def plan(seeds: int, shards: int, per_device: int = 1, rows: int | None = None) -> Plan:
    """Places seeds on the devices, and the shards of their batches on the rest of them.

    A GPU or TPU takes `per_device` seeds at once.  On CPU a device takes one at a time, whatever is
    asked: measured faster than several, and a run's bits do not depend on its neighbours.  `rows`
    bounds the devices along `SEED`.
    """
    devices = all_devices()
    on_cpu = devices[0].platform == "cpu"
    rows = min(seeds, len(devices) if rows is None else rows)
    columns = max(n for n in range(1, len(devices) // rows + 1) if shards % n == 0)
    used = np.array(devices[: rows * columns]).reshape(rows, columns)
    per_device = 1 if on_cpu else min(per_device, -(-seeds // rows))
    return Plan(Mesh(used, (SEED, SHARD)), per_device, at_once=not on_cpu)


class Program:
    """The functions of runs of a `config.canonical`, compiled for the seeds of a wave."""

    def __init__(self, config: Config, plan: Plan) -> None:
        off = bool(jax.config.values["jax_disable_jit"])
        require(not off, "jax_disable_jit", off, "False; `sumrnn.fit` alone can do without")
        self.plan = plan
        self.sharding = NamedSharding(plan.mesh, PartitionSpec(SEED))
        placement = Placement(int(plan.mesh.shape[SHARD]), plan.at_once)
        functions = compiler.functions(config.canonical, placement)
        seeds = jax.ShapeDtypeStruct((plan.wave, 3), np.uint32)
        number = jax.ShapeDtypeStruct((plan.wave,), np.uint32)
        platform = plan.mesh.devices.flat[0].platform
        begin, epoch, predict, self._draw_options = compiler.options(platform)
        self.begin, (data, state, shuffle) = self._compile(functions.begin, begin, seeds)
        self.epoch, _ = self._compile(functions.epoch, epoch, state, shuffle, data.train, number)
        self.predict, _ = self._compile(functions.predict, predict, state.params, data, number)
        self._draw, self._task, self._number = functions.draw, config.task, number

    @functools.cached_property
    def draw(self) -> Function:
        """Draws series for exact evaluation, see `evaluation.draw`, by one table for all seeds.

        It is compiled when it is needed, at the end of a run.
        """
        table = jax.ShapeDtypeStruct(self.laws.shape, np.float32)
        sums = jax.ShapeDtypeStruct((self.plan.wave, self._task.size), np.int32)
        return self._compile(self._draw, self._draw_options, table, sums, self._number, shared=1)[0]

    @functools.cached_property
    def laws(self) -> np.ndarray:
        """The table of `task.log_pmf_table`, float32, on the host."""
        return log_pmf_table(self._task)

    @property
    def table(self) -> jax.Array:
        """The table of `task.log_pmf_table` on every device."""
        place = NamedSharding(self.plan.mesh, PartitionSpec())
        with jax.transfer_guard("allow"):  # It is meant.
            return jax.make_array_from_callback(
                self.laws.shape, place, lambda part: self.laws[part]
            )

    def _compile(
        self, function: Function, options: dict[str, Any] | None, *shapes: Any, shared: int = 0
    ) -> tuple[Function, Any]:
        """A compiled function of arrays with an axis of seeds in front; the shapes it returns.

        The first `shared` arrays have no such axis, and are the same on every device.
        """

        def local(*arguments: Any) -> Any:
            common, each = arguments[:shared], arguments[shared:]
            if self.plan.at_once:
                return jax.vmap(lambda *one: function(*common, *one))(*each)
            outputs = function(*common, *jax.tree.map(lambda x: x[0], each))
            return jax.tree.map(lambda x: x[None], outputs)

        spec, everywhere = PartitionSpec(SEED), PartitionSpec()
        specs = (everywhere,) * shared + (spec,) * (len(shapes) - shared)
        mapped = jax.shard_map(
            local, mesh=self.plan.mesh, in_specs=specs, out_specs=spec, check_vma=False
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
        """The bytes that a wave takes of a device's memory, on CPU of the machine's, to its end."""
        sharing = 1 if self.plan.at_once else len(self.plan.mesh.local_devices)
        peak = max(map(compiler.peak_bytes, (self.begin, self.epoch, self.predict)))
        if evaluation.is_evaluated(self._task):  # It comes beside data and state.
            kept = compiler.output_bytes(self.begin)
            small = self.draw_bound <= BOUND
            drawn = self.draw_bound if small else compiler.peak_bytes(self.draw)
            peak = max(peak, kept + max(drawn, compiler.peak_bytes(self.predict)))
        return sharing * peak

    @property
    def draw_bound(self) -> int:
        """A bound on the bytes that `draw` takes on a device, reckoned without compiling it."""
        size, length, width = self._task.size, self._task.length, self._task.high - self._task.low
        series = size * (16 * (width + 1) + 4 * length + 64)
        return 8 * self._task.pmf_table_size + self.plan.per_device * series


@functools.lru_cache(maxsize=16)
def _program(config: Config, plan: Plan) -> Program:
    return Program(config, plan)


def prepare(config: Config, seeds: int, per_device: int | None = None) -> Program:
    """Compiles so many seeds' runs for all devices, or for as many as memory holds.

    `per_device` is what a GPU or TPU takes per wave; None: as many as its memory holds.  Raises
    `UserError` if it is not positive, or memory does not hold as many or a single run.
    """
    if per_device is not None and per_device < 1:
        raise invalid("per_device", per_device, "at least 1")
    config, shards = config.canonical, config.train.batch_shards
    program = _program(config, plan(seeds, shards, per_device or 1))
    available_bytes = machine.available_bytes(jax.local_devices()[0])
    if program.plan.at_once and per_device is None:
        fitting = max(1, int(MEMORY_SHARE * available_bytes / program.bytes_needed))
        program = _program(config, plan(seeds, shards, fitting))
    while program.bytes_needed > available_bytes:
        if per_device is not None and program.plan.per_device > 1:
            has, need = available_bytes / 2**30, program.bytes_needed / 2**30
            allowed = f"fewer seeds: a device has {has:,.1f} GiB, they need {need:,.1f}"
            raise invalid("per_device", per_device, allowed)
        if program.plan.rows == 1:
            raise machine.too_large(config, program.bytes_needed, available_bytes)
        program = _program(config, plan(seeds, shards, rows=program.plan.rows // 2))
    return program
