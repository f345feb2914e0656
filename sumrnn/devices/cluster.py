"""Several processes that do the same work together; alone, every function here is trivial."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sumrnn.errors import UserError, invalid, require
from sumrnn.fields import Range

HEARTBEAT = 20
"""Seconds after which a silent process counts as dead."""
FOREVER = 24 * 60 * 60
"""Seconds; at the end of its own patience JAX aborts, so the caller must be less patient."""
MAX_PROCESSES = 1 << 20
HOW = (
    "under Slurm, Open MPI, Kubernetes or on a TPU pod, or with --coordinator, --processes and "
    "--process-id"
)


class Lost(UserError):
    """Another process of the same work has ended; JAX would wait for it at a normal exit."""


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Makes this process one of several; call it before the first computation.

    The coordinator is "host:port" of the first process, `process_id` counts from 0; what is None is
    as Slurm, Open MPI, Kubernetes or a TPU pod tells.  Raises `UserError` if a value is impossible,
    or the cluster cannot be detected.
    """
    # What the service cannot read makes it end the process.
    readable = coordinator is None or re.fullmatch(r"[!-~]+:[0-9]{1,5}", coordinator)
    require(bool(readable), "coordinator", coordinator, "host:port of the first process")
    if processes is not None:
        Range(1, MAX_PROCESSES).require("processes", processes)
    if process_id is not None:
        last = (processes or MAX_PROCESSES) - 1
        Range(0, last, "they count from 0").require("process_id", process_id)
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
        raise invalid("coordinator", coordinator, f"usable ({reason})") from None
    except ValueError:
        given = {"processes": processes, "process_id": process_id, "coordinator": coordinator}
        asked = next((name for name in given if given[name] is not None), "distributed")
        raise invalid(asked, given.get(asked, True), HOW) from None


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Turns the end of another process into `Lost`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if is_alone():
            raise
        reason = str(error).splitlines()[0]
        raise Lost(
            f"process {jax.process_index()} of {jax.process_count()} ends, because it lost "
            f"another one ({reason}); what is finished is kept, start again to continue",
            status=1,
        ) from None


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
    with jax.transfer_guard("allow"):  # It is meant.
        return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def first_does(action: Callable[[], object]) -> None:
    """Lets the first process do something while the others wait; a failure there ends all.

    Raises `UserError` on the other processes, if the first one failed.
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
        raise UserError("process 0 could not go on; its message says why", status=1)


def largest(number: int) -> int:
    """The largest of the processes' numbers; they call this together."""
    if is_alone():
        return number
    with jax.transfer_guard("allow"):  # It is meant.
        return int(multihost_utils.process_allgather(np.array(number)).max())


def to_host(tree: Any, rows: slice) -> Any:
    """Some rows of the whole arrays, on the host of every process; they call this together."""
    if is_alone():
        whole = jax.device_get(tree)
    else:
        with jax.transfer_guard("allow"):  # It is meant.
            whole = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda x: x[rows], whole)
