"""An experiment: the declaration of a question, and of the runs that answer it."""

import dataclasses
import math
import re

from sumrnn import fields
from sumrnn.config import Config, Name
from sumrnn.errors import require
from sumrnn.seeds import MAX_SEED, check_seeds

MAX_SEEDS = 1_000_000
PLOTS = ("scores", "learning", "skew", "variance", "lengths", "digits", "cells", "errors")
"""scores: every run as a point; learning: curves with bands; skew: scores against the
exact positive share; variance: what the spread comes from (needs crossed seeds); lengths:
accuracy among ever more zeros; digits: of more and fewer digits; cells: readings of the running
sum; errors: by sum, and confidence (these four need their probe)."""
PROBES = ("lengths", "digits", "cells", "errors")
"""lengths: exact scores of series whose digits stand among ever more zeros; digits: those of more
and fewer digits, the threshold moved along; cells: the running sum as it is read from the states;
errors: by sum, by confidence, and by series."""

SCORES = (
    "accuracy",
    "majority_accuracy",
    "gain",
    "skill",
    "constant_p_value",
    "balanced_accuracy",
    "matthews_correlation",
    "roc_auc",
    "average_precision_minority",
    "brier_score",
    "log_loss",
    "exact_accuracy",
    "exact_error",
    "exact_skill",
    "exact_balanced_accuracy",
    "exact_matthews_correlation",
    "tn",
    "fp",
    "fn",
    "tp",
)
"""Scores of the test series, and those by the law (exact_*); every one a column of the table."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it: every condition with every seed."""

    name: Name
    """Like those of conditions: lower-case letters, digits, dots and hyphens."""
    question: str
    """One line."""
    conditions: dict[Name, Config]
    """By name: lower-case letters, digits, dots and hyphens."""
    seeds: str = "0:8"
    """What `--seeds` is unless given."""
    scores: tuple[str, ...] = ("accuracy", "balanced_accuracy", "matthews_correlation")
    """From `SCORES`: those that are shown; the table has all."""
    plots: tuple[str, ...] = ("scores", "learning")
    """From `PLOTS`."""
    probes: tuple[str, ...] = ()
    """What is measured of each run that has finished, from `PROBES`."""
    baselines: dict[str, str] = dataclasses.field(default_factory=dict)
    """By condition: the one that it is compared with; none: each with each."""
    references: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """By condition and score: a value from elsewhere, to be placed among the runs."""

    ADDED = ("probes",)
    """Fields that the JSON of earlier versions lacks."""

    def __post_init__(self) -> None:
        fields.check(self)
        text = self.question
        require(text.isprintable() and text != "", "question", text, "a line of text")
        require(len(self.conditions) > 0, "conditions", self.conditions, "at least one")
        lists = (("scores", SCORES, 1), ("plots", PLOTS, 1), ("probes", PROBES, 0))
        for field, known, least in lists:
            chosen = getattr(self, field)
            good = least <= len(chosen) == len(set(chosen)) and set(chosen) <= set(known)
            require(good, field, chosen, f"some of {', '.join(known)}, once each")
        probed = set(self.plots) & set(PROBES) <= set(self.probes)
        require(probed, "plots", self.plots, "without pictures of probes that are not measured")
        for name, baseline in self.baselines.items():
            good = {name, baseline} <= set(self.conditions) and name != baseline
            require(good, "baselines", {name: baseline}, "two conditions by their names")
        for name, values in self.references.items():
            require(name in self.conditions, "references", name, "the name of a condition")
            for score, value in values.items():
                good = math.isfinite(value) and score in SCORES
                require(good, "references", {score: value}, "finite numbers by score")
        crossed = len({config.unpinned for config in self.conditions.values()}) == 1
        allowed = "of conditions that differ in their seeds alone"
        require(crossed or "variance" not in self.plots, "plots", "variance", allowed)


def parse_seeds(field: str, text: str) -> tuple[int, ...]:
    """Seeds from a list such as "0:32" (0 to 31) or "3,5,8:12".

    Raises `UserError` if it is malformed, empty, or repeats a seed.
    """
    allowed = "seeds and ranges first:end (without the end) with commas between, such as 3,5,8:12"
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,20})(?::([0-9]{1,20}))?", part.strip())
        require(match is not None, field, text, allowed)
        assert match is not None
        first, end = int(match[1]), int(match[2] or int(match[1]) + 1)
        require(end <= MAX_SEED + 1, field, text, f"of seeds up to {MAX_SEED}")
        require(first < end, field, text, f"of ranges that hold a seed (not {part.strip()!r})")
        many = len(seeds) + end - first
        require(many <= MAX_SEEDS, field, text, f"at most {MAX_SEEDS} seeds")
        seeds += range(first, end)
    return check_seeds(field, seeds)
