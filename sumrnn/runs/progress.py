"""The progress of an experiment, as its worker or the watcher of its jobs knows it."""

import dataclasses
import time


@dataclasses.dataclass
class Progress:
    """How far the runs of an experiment are."""

    total: int
    """Runs that are wanted."""
    done: int = 0
    """Runs that have ended, whoever made them."""
    todo: float = 0
    """What was missing at the start: seed-epochs, or runs where jobs make them."""
    worked: float = 0
    """What of it is done."""
    name: str = ""
    """Of the current wave, as the next three."""
    seeds: tuple[int, ...] = ()
    epochs: int = 0
    """Epochs of each of its runs."""
    epoch: int = 0
    """Finished epochs; 0 before a wave, and after it."""
    diverged: int = 0
    """Runs since the start whose numbers are no longer finite."""
    elsewhere: int = 0
    """Runs that other processes had when they were last looked at."""
    jobs: dict[str, int] = dataclasses.field(default_factory=dict)
    """Jobs that have not ended, by their state."""
    failures: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)
    """By condition and seed: why a run is not tried any more."""
    began: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def speed(self) -> float:
        """What is worked off per second since the start."""
        return self.worked / max(time.perf_counter() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Expected time until the end; NaN before anything is done."""
        return (self.todo - self.worked) / self.speed if self.worked else float("nan")
