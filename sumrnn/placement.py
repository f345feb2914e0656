"""Which device does what: seeds in waves over a mesh of devices, of one process or several.

A run is a pure function of config and seed; nothing here changes its numbers on CPU,
only where and when they are computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import scipy.linalg  # noqa: F401  JAX's LAPACK: threadpoolctl limits only what is loaded.
import threadpoolctl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sumrnn import train
from sumrnn.config import Config, ConfigError, check_seeds
from sumrnn.task import Splits

SEED, SHARD = "seed", "shard"
"""The mesh's axes: runs, and the parts of each run's batches."""
CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
"""The compiler's: as wide as the processor's vectors are (the default stops at 256 bits), and
no order of work that is meant for idle cores."""
MEMORY_SHARE = 0.7
"""Share of an accelerator's free memory that a wave may take."""
PROCESS_BYTES = 500 << 20
"""Of the machine's memory, for Python, JAX and the compiler, whatever is run."""
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells how much memory a container may use, in version 2 and in version 1."""
HEARTBEAT = 20
"""Seconds after which a silent process counts as dead."""
FOREVER = 24 * 60 * 60
"""Seconds; at the end of its own patience JAX aborts, so the caller must be less patient."""
MAX_PROCESSES = 1 << 20
MAX_DEVICES = 4_096
"""CPU devices of a process."""
NUMBERS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
}
"""Settings of JAX on which numbers depend, and which the environment would change unnoticed."""


class Batch(NamedTuple):
    """Finished runs of one config; every array has a leading axis of seeds."""

    seeds: tuple[int, ...]
    state: train.State
    history: train.Metrics
    """float32 [seeds, epochs] each."""
    data: Splits
    logits: tuple[chex.Array, ...]
    """float32 [seeds, n] for each split."""


def unpinned(config: Config) -> Config:
    """The config with every purpose on the run's own seed."""
    return dataclasses.replace(config, data_seed=None, init_seed=None, shuffle_seed=None)


def one(batch: Batch, index: int) -> tuple[train.State, Splits, tuple[chex.Array, ...]]:
    """State, data and logits of one run of a batch."""
    found: tuple[train.State, Splits, tuple[chex.Array, ...]] = jax.tree.map(
        lambda x: np.asarray(x[index]), (batch.state, batch.data, batch.logits)
    )
    return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the seeds of a wave go."""

    mesh: Mesh
    """Devices along the axes `SEED` and `SHARD`."""
    per_device: int
    """Seeds of a wave that a device takes."""
    at_once: bool
    """Whether a device takes its seeds, and each one's shards, at once or one after the other."""

    @property
    def wave(self) -> int:
        """Seeds per wave."""
        return int(self.mesh.shape[SEED]) * self.per_device


def use_cores(devices: int | None = None) -> None:
    """Makes CPU cores into devices, and sets what else numbers depend on.

    Call it before the first computation.

    Args:
      devices: how many CPU devices; None: one for each core that this process may use.

    Raises:
      ConfigError: if `devices` is not between 1 and `MAX_DEVICES`.
    """
    if devices is not None and not 1 <= devices <= MAX_DEVICES:
        raise ConfigError("devices", devices, f"at least 1, at most {MAX_DEVICES}")
    jax.config.update("jax_num_cpu_devices", devices or _cores())
    for name, value in NUMBERS.items():
        jax.config.update(name, value)


def _cores() -> int:
    """Cores that this process may use; not every system can restrict them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Makes this process one of several that work together; call it after `use_cores`.

    Args:
      coordinator: "host:port" of the first process; like the next two, None: as Slurm,
        Open MPI, Kubernetes or a TPU pod tells.
      processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      ConfigError: if an argument is impossible or the cluster cannot be detected.
    """
    # What the service cannot read makes it end the process.
    if coordinator is not None and not re.fullmatch(r"[!-~]+:[0-9]{1,5}", coordinator):
        raise ConfigError("coordinator", coordinator, "host:port of the first process")
    if processes is not None and not 1 <= processes <= MAX_PROCESSES:
        raise ConfigError("processes", processes, f"at least 1, at most {MAX_PROCESSES}")
    if process_id is not None and not 0 <= process_id < (processes or MAX_PROCESSES):
        raise ConfigError("process_id", process_id, "at least 0 and below processes")
    # The service would catch SIGTERM and let the process live on.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=FOREVER,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:  # The address is not one of this machine, or is taken.
        reason = str(error).splitlines()[0]
        raise ConfigError("coordinator", coordinator, f"usable ({reason})") from None
    except ValueError:
        raise ConfigError(
            "distributed",
            True,
            "under Slurm, Open MPI, Kubernetes or on a TPU pod, or with --coordinator, "
            "--processes and --process-id",
        ) from None


def check_per_device(per_device: int | None) -> None:
    """Raises `ConfigError` unless it is None or positive."""
    if per_device is not None and per_device < 1:
        raise ConfigError("per_device", per_device, "at least 1")


class Lost(Exception):
    """Another process of the same work has ended."""


class Refused(Exception):
    """The first process could not do its part; the connection to it is whole."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Turns the end of another process into `Lost`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        raise Lost(
            f"process {jax.process_index()} of {jax.process_count()} ends, because it lost "
            f"another one ({reason}); what is finished is kept, start again to continue"
        ) from None


def plan(seeds: int, config: Config, per_device: int | None = None) -> Plan:
    """How to run this many seeds of a config on the devices there are.

    On CPU a device takes one seed at a time: measured faster than several at once, and
    the bits of a run do not depend on its neighbours.  A GPU or TPU takes as many at
    once as its memory holds.  Where devices would be idle, the shards of each run's batches
    are spread over several.

    Args:
      seeds: how many; at least 1.
      config: of all of them.
      per_device: seeds per device and wave; None: chosen as said above.

    Raises:
      ConfigError: if `per_device` is not positive, or memory does not hold a single run.
    """
    check_per_device(per_device)
    check_memory(config)
    available = jax.devices()
    on_cpu = available[0].platform == "cpu"
    if on_cpu and jax.process_count() == 1:  # CPU devices share one memory.
        available = available[: _fitting(config)]
    # Every process must have a part in every wave; alone, idle devices are left out.
    rows = len(available) if jax.process_count() > 1 else min(seeds, len(available))
    shards = config.train.batch_shards
    columns = max(n for n in range(1, len(available) // rows + 1) if shards % n == 0)
    used = np.array(available[: rows * columns]).reshape(rows, columns)
    needed = -(-seeds // rows)
    if per_device is None:
        per_device = 1 if on_cpu else _fitting(config)
    return Plan(Mesh(used, (SEED, SHARD)), min(per_device, needed), at_once=not on_cpu)


def memory_of_a_run(config: Config, at_once: bool) -> dict[str, int]:
    """An estimate of the bytes that a run takes on a device, within a factor of about 2.

    Args:
      config: of the run.
      at_once: whether the device computes the shards of a batch at once, as in `Plan`.

    Returns:
      Bytes by the field that they grow with: "size" for the data, "batch_size" for a step,
      "cells" for parameters and prediction, "batch_shards" for the gradients.
    """
    task, cells = config.task, config.model.cells
    shards = config.train.batch_shards
    weights = 4 * cells * (cells + 2) + cells + 1
    rows = -(-config.train.batch_size // shards) * (shards if at_once else 1)
    return {
        # Drawing a digit takes an int32, its random bits twice, and what they are made from.
        "size": 24 * task.size * (task.length + 1),
        # Per step the recurrence saves six arrays, the gates' gradient and a transposed state
        # for each series, and about as much as one step's is in use.
        "batch_size": 4 * 13 * (task.length + 1) * rows * cells,
        # Parameters, Adam's two means and their successors; the orthogonal initialiser's work.
        # Prediction keeps the gates of its rows.
        "cells": 4 * (12 * weights + 10 * min(train.PREDICTION_ROWS, task.size) * cells),
        # Every shard has its own gradient, twice while they are gathered.
        "batch_shards": 4 * 2 * shards * weights,
    }


def _memory(device: Any) -> float:
    """Bytes that runs may take of a device's memory; CPU devices share the machine's."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return float(stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0))
    return max(0.0, machine_memory() - PROCESS_BYTES)


def machine_memory() -> float:
    """Bytes of the machine's or the container's memory, whichever is less; inf if not told."""
    found = [math.inf]
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ())):
        found.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # Absent, or "max".
            found.append(float(int(pathlib.Path(path).read_text())))
    return min(found)


def check_memory(config: Config) -> None:
    """Checks that memory holds a single run, before anything is compiled.

    Raises:
      ConfigError: if it does not; names the field that is out of proportion.
      Refused: if that of another process does not.
    """
    try:
        device = jax.local_devices()[0]
    except RuntimeError as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        if not wanted:
            raise
        allowed = f"platforms that JAX has here ({error})"
        raise ConfigError("JAX_PLATFORMS", wanted, allowed) from None
    parts = memory_of_a_run(config, at_once=device.platform != "cpu")
    needed, there = sum(parts.values()), _memory(device)
    if not largest(needed > there):
        return
    if needed <= there:
        raise Refused("another process has too little memory; its message says more")
    values, usual = (
        {**vars(of.task), **vars(of.model), **vars(of.train)} for of in (config, Config())
    )
    dominant = max(parts, key=lambda name: parts[name])
    # It grows with more than one field.
    others = {"size": ("length",), "batch_size": ("length", "cells")}.get(dominant, ("cells",))
    field = max((dominant, *others), key=lambda name: values[name] / usual[name])
    where = "this machine" if device.platform == "cpu" else "a device"
    raise ConfigError(
        field,
        values[field],
        f"small enough for memory: the run needs about {needed / 2**30:,.1f} GiB, "
        f"{where} has {there / 2**30:,.1f} GiB for it",
    )


def _fitting(config: Config) -> int:
    """Runs, at least 1, that a device's memory holds at once; on CPU, that the machine's does."""
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    needed = sum(memory_of_a_run(config, at_once=not on_cpu).values())
    runs = (1.0 if on_cpu else MEMORY_SHARE) * _memory(device) / needed
    # Every process must come to the same answer; the first one gives it.
    return int(from_first(np.array(int(max(1.0, min(runs, MAX_PROCESSES))))))


def over_seeds(function: Callable[..., Any], config: Config, plan: Plan) -> Callable[..., Any]:
    """`function(config, ...)` of one seed as a compiled function of a wave of seeds."""
    return _compiled(function, config, plan.mesh, plan.at_once)


def _at_once(function: Callable[[Any], Any], rows: Any, once: chex.Numeric) -> Any:
    """`train.one_by_one` for devices that do many things at a time."""
    return jax.vmap(function)(rows)


def _over_shards(
    over_own: train.OverShards,
    function: Callable[[Any], Any],
    shards: Any,
    once: chex.Numeric,
) -> Any:
    """`train.OverShards` on the devices along `SHARD`; each maps an equal part by `over_own`."""
    here, devices = jax.lax.axis_index(SHARD), jax.lax.axis_size(SHARD)
    if devices == 1:
        return over_own(function, shards, once)
    own = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:])[here], shards)
    return jax.lax.all_gather(over_own(function, own, once), SHARD, tiled=True)


@functools.lru_cache(maxsize=32)
def _compiled(
    function: Callable[..., Any], config: Config, mesh: Mesh, at_once: bool
) -> Callable[..., Any]:
    over_own: train.OverShards = _at_once if at_once else train.one_by_one

    # A one for each device: read from memory, it tells the compiler nothing.
    def local(ones: chex.Array, *arguments: Any) -> Any:
        once = 1 if at_once else ones[0]
        one = functools.partial(function, config)
        if function in (_epoch, train.predictions):  # What cuts its work into shards.
            over_shards = functools.partial(_over_shards, over_own)
            one = functools.partial(one, over_shards=over_shards, once=once)
        return over_own(lambda arguments: one(*arguments), arguments, once)

    spec = PartitionSpec(SEED)
    sharding = NamedSharding(mesh, spec)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    # With its shardings given, the second call does not compile again.
    compiled = jax.jit(
        mapped,
        in_shardings=sharding,
        out_shardings=sharding,
        compiler_options=CPU_OPTIONS if on_cpu else None,
    )
    ones = _put(np.ones(mesh.shape[SEED], np.int32), sharding)
    return functools.partial(compiled, ones)


def _put(whole: np.ndarray, sharding: NamedSharding) -> chex.Array:
    """An array that every process has, on the devices."""
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def _start(config: Config, keys: train.Keys) -> tuple[Splits, train.State, chex.Array]:
    data, state = train.make_data(config, keys.data), train.init(config, keys.init)
    return data, state, jax.random.key_data(keys.shuffle)


def _epoch(
    config: Config, state: train.State, shuffle: chex.Array, *rest: Any, **shards: Any
) -> tuple[train.State, train.Metrics]:
    """`train.epoch` with the data of its key, which can be kept and put back."""
    after: tuple[train.State, train.Metrics] = train.epoch(
        config, state, jax.random.wrap_key_data(shuffle), *rest, **shards
    )
    return after


def _host(tree: Any, rows: slice) -> Any:
    """Some rows of the whole arrays, on the host of every process."""
    if is_alone():
        whole = jax.device_get(tree)
    else:
        from jax.experimental import multihost_utils

        whole = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda x: x[rows], whole)


def is_alone() -> bool:
    """Whether this is the only process."""
    return int(jax.process_count()) == 1


def is_first() -> bool:
    """Whether this is the process that writes; true if there is only one."""
    return jax.process_index() == 0


def from_first(tree: Any) -> Any:
    """The first process's arrays, on every process; all have some of these shapes and dtypes."""
    if is_alone():
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def first_does(action: Callable[[], None]) -> None:
    """Lets the first process do something while the others wait; a failure there ends all.

    Raises:
      Refused: on the other processes, if the first one failed.
    """
    failure: Exception | None = None
    if is_first():
        try:
            action()
        except Exception as error:
            failure = error
    failed = bool(from_first(np.array(failure is not None)))
    if failure:
        raise failure
    if failed:
        raise Refused("process 0 could not go on; its message says why")


def largest(number: int) -> int:
    """The largest of the processes' numbers; they call this together."""
    if is_alone():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.array(number)).max())


class Start(NamedTuple):
    """Where runs go on; every array has a leading axis of seeds."""

    state: train.State
    shuffle: np.ndarray
    """uint32 [seeds, 2]: the data of the shuffling keys."""
    history: train.Metrics
    """float32 [seeds, epochs so far] each."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """The runs of a wave just after an epoch."""

    seeds: tuple[int, ...]
    epoch: int
    """Finished epochs."""
    metrics: train.Metrics
    """Of this epoch, float32 [seeds] each."""
    finite: np.ndarray
    """bool [seeds]: whether losses, parameters and optimiser state are all numbers."""
    arrays: tuple[train.State, chex.Array]
    """State and shuffling keys' data, where they were computed; see `fetch`."""

    def fetch(self) -> tuple[train.State, np.ndarray]:
        """The arrays on the host, with a leading axis of seeds; processes call this together."""
        found: tuple[train.State, np.ndarray] = _host(self.arrays, slice(len(self.seeds)))
        return found


class Wave:
    """Runs that are trained at the same time, an epoch per `step`.

    Args:
      config: of every run.
      seeds: in [0, 2^32), at least one, at most `plan.wave`.
      plan: as from `plan`.
      start: where they go on; None: from the beginning.
    """

    def __init__(
        self, config: Config, seeds: Sequence[int], plan: Plan, start: Start | None = None
    ) -> None:
        self.seeds = tuple(seeds)
        self._missing = plan.wave - len(seeds)
        self._sharding = NamedSharding(plan.mesh, PartitionSpec(SEED))
        # Conditions that differ in pinned seeds alone share all that takes long to compile.
        free = unpinned(config)
        split = over_seeds(train.keys, config, plan)
        begin = over_seeds(_start, free, plan)
        self._epoch = over_seeds(_epoch, free, plan)
        self._is_finite = over_seeds(train.is_finite, free, plan)
        self._predict = over_seeds(train.predictions, free, plan)
        keys = split(self._put(np.array(seeds, np.uint32)))
        # The orthogonal initialiser goes to LAPACK, whose bits depend on its threads.
        with threadpoolctl.threadpool_limits(1, "blas"):
            self._data, self._state, self._shuffle = jax.block_until_ready(begin(keys))
        self._history: list[train.Metrics] = []
        if start is not None:
            self._state, self._shuffle = jax.tree.map(self._put, (start.state, start.shuffle))
            epochs = range(start.history.loss.shape[1])
            self._history = [train.Metrics(*(x[:, n] for x in start.history)) for n in epochs]

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self._history)

    def step(self) -> Moment:
        """Trains every run for an epoch."""
        number = self._put(np.full(len(self.seeds), self.epoch, np.uint32))
        self._state, metrics = self._epoch(self._state, self._shuffle, self._data, number)
        found = self._fetch((metrics, self._is_finite(self._state)))
        self._history.append(found[0])
        finite = found[1] & np.isfinite(found[0].loss) & np.isfinite(found[0].val_loss)
        return Moment(self.seeds, self.epoch, found[0], finite, (self._state, self._shuffle))

    def result(self) -> Batch:
        """The runs as they are now, on the host."""
        logits = self._predict(self._state.params, self._data)
        state, data, logits = self._fetch((self._state, self._data, logits))
        history = jax.tree.map(lambda *epochs: np.stack(epochs, axis=1), *self._history)
        return Batch(self.seeds, state, history, data, logits)

    def _put(self, rows: np.ndarray) -> chex.Array:
        """The runs' rows on the devices, the last one once more for what a whole wave lacks."""
        padding = np.repeat(rows[-1:], self._missing, axis=0)
        return _put(np.concatenate((rows, padding)), self._sharding)

    def _fetch(self, tree: Any) -> Any:
        return _host(tree, slice(len(self.seeds)))


def waves(seeds: Sequence[int], plan: Plan) -> list[tuple[int, ...]]:
    """Cuts seeds into those of each wave."""
    starts = range(0, len(seeds), plan.wave)
    return [tuple(seeds[first : first + plan.wave]) for first in starts]


def fit(
    config: Config,
    seeds: Sequence[int],
    per_device: int | None = None,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Batch:
    """All seeds' runs as one batch; `watch` is called after each epoch of each wave.

    Raises:
      ConfigError: if a seed is not an integer in [0, 2^32), is repeated, or there is none.
    """
    seeds = check_seeds("seeds", seeds)
    where, found = plan(len(seeds), config, per_device), []
    for mine in waves(seeds, where):
        wave = Wave(config, mine, where)
        while wave.epoch < config.train.epochs:
            watch(wave.step())
        found.append(wave.result()[1:])
    return Batch(seeds, *jax.tree.map(lambda *parts: np.concatenate(parts), *found))
