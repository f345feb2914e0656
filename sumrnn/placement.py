"""Which device does what: seeds in waves over a mesh of devices, of one process or several.

A run is a pure function of config and seed; nothing here changes its numbers on CPU,
only where and when they are computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
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
HEARTBEAT = 20
"""Seconds after which a silent process counts as dead."""
FOREVER = 24 * 60 * 60
"""Seconds; at the end of its own patience JAX aborts, so the caller must be less patient."""
MAX_PROCESSES = 1 << 20


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
    """Makes CPU cores into devices; call it before the first computation.

    Args:
      devices: how many CPU devices; None: one for each core that this process may use.

    Raises:
      ConfigError: if `devices` is not positive.
    """
    if devices is not None and devices < 1:
        raise ConfigError("devices", devices, "at least 1")
    jax.config.update("jax_num_cpu_devices", devices or _cores())


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
    if coordinator is not None and not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise ConfigError("coordinator", coordinator, "host:port of the first process")
    if processes is not None and processes < 1:
        raise ConfigError("processes", processes, "at least 1")
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
      ConfigError: if `per_device` is not positive.
    """
    check_per_device(per_device)
    available = jax.devices()
    # Every process must have a part in every wave; alone, idle devices are left out.
    rows = len(available) if jax.process_count() > 1 else min(seeds, len(available))
    shards = config.train.batch_shards
    columns = max(n for n in range(1, len(available) // rows + 1) if shards % n == 0)
    used = np.array(available[: rows * columns]).reshape(rows, columns)
    on_cpu = available[0].platform == "cpu"
    needed = -(-seeds // rows)
    if per_device is None:
        per_device = 1 if on_cpu else max(1, _fitting(config))
    return Plan(Mesh(used, (SEED, SHARD)), min(per_device, needed), at_once=not on_cpu)


def _fitting(config: Config) -> int:
    """Seeds whose training and prediction fit into a device's memory at once."""
    # Every process must come to the same answer; the first one gives it.
    stats = jax.local_devices()[0].memory_stats() or {}
    free = stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0)
    task, cells = config.task, config.model.cells
    weights = 4 * cells * (cells + 2) + cells + 1
    # Per step the recurrence saves six arrays, the gates' gradient and a transposed state for
    # each series; prediction keeps the gates of its rows; every shard has its own gradient.
    step = 11 * task.length * config.train.batch_size * cells
    rows = 10 * min(train.PREDICTION_ROWS, task.size) * cells
    floats = (8 + config.train.batch_shards) * weights + max(step, rows)
    seeds = MEMORY_SHARE * free / (4 * floats + 3 * task.size * (task.length + 8))
    return int(from_first(np.array(int(seeds))))


def over_seeds(function: Callable[..., Any], config: Config, plan: Plan) -> Callable[..., Any]:
    """`function(config, ...)` of one seed as a compiled function of a wave of seeds."""
    return _compiled(function, config, plan.mesh, plan.at_once)


SHARDED = (train.epoch, train.predictions)
"""What cuts its work into shards."""


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
        if function in SHARDED:
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


def _start(config: Config, keys: train.Keys) -> tuple[Splits, train.State]:
    return train.make_data(config, keys.data), train.init(config, keys.init)


def _host(tree: Any, rows: slice) -> Any:
    """Some rows of the whole arrays, on the host of every process."""
    if jax.process_count() == 1:
        whole = jax.device_get(tree)
    else:
        from jax.experimental import multihost_utils

        whole = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda x: x[rows], whole)


def is_first() -> bool:
    """Whether this is the process that writes; true if there is only one."""
    return jax.process_index() == 0


def from_first(array: np.ndarray) -> np.ndarray:
    """The first process's array, on every process; all have one of this shape and dtype."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array))


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


Watch = Callable[[Sequence[int], int, train.Metrics], None]
"""Called after each epoch with the wave's seeds, the epoch's number from 0, and its
metrics, float32 [seeds] each."""


def waves(
    config: Config, seeds: Sequence[int], plan: Plan, watch: Watch | None = None
) -> Iterator[Batch]:
    """Runs seeds wave by wave; yields the finished runs of each wave, on the host.

    Args:
      config: of every run.
      seeds: in [0, 2^32), at least one.
      plan: as from `plan`.
      watch: is told each epoch.
    """
    # Conditions that differ in pinned seeds alone share all that takes long to compile.
    free = unpinned(config)
    split = over_seeds(train.keys, config, plan)
    start = over_seeds(_start, free, plan)
    epoch = over_seeds(train.epoch, free, plan)
    predict = over_seeds(train.predictions, free, plan)
    sharding = NamedSharding(plan.mesh, PartitionSpec(SEED))

    def put(values: Sequence[int]) -> chex.Array:
        return _put(np.array(values, np.uint32), sharding)

    for first in range(0, len(seeds), plan.wave):
        mine = tuple(seeds[first : first + plan.wave])
        present = slice(len(mine))
        # A wave has one shape: the last seed once more for what is missing in the last wave.
        padded = mine + mine[-1:] * (plan.wave - len(mine))
        keys = split(put(padded))
        # The orthogonal initialiser goes to LAPACK, whose bits depend on its threads.
        with threadpoolctl.threadpool_limits(1, "blas"):
            data, state = jax.block_until_ready(start(keys))
        history = []
        for number in range(config.train.epochs):
            state, metrics = epoch(state, keys.shuffle, data, put([number] * plan.wave))
            history.append(_host(metrics, present))
            if watch:
                watch(mine, number, history[-1])
        logits = predict(state.params, data)
        columns = (np.stack(column, axis=1) for column in zip(*history, strict=True))
        state, data, logits = _host((state, data, logits), present)
        yield Batch(mine, state, train.Metrics(*columns), data, logits)


def fit(
    config: Config,
    seeds: Sequence[int],
    per_device: int | None = None,
    watch: Watch | None = None,
) -> Batch:
    """All seeds' runs at once, as one batch; see `waves` for a wave at a time.

    Raises:
      ConfigError: if a seed is not an integer in [0, 2^32), is repeated, or there is none.
    """
    seeds = check_seeds("seeds", seeds)
    found = list(waves(config, seeds, plan(len(seeds), config, per_device), watch))
    rest = [batch[1:] for batch in found]
    return Batch(seeds, *jax.tree.map(lambda *parts: np.concatenate(parts), *rest))
