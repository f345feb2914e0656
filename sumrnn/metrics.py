"""Labels and logits of one split -> scores that survive class skew.

A score that the data leave undefined, because a class is absent from the labels or from
the answers, is None and has a reason; it is never a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES = ("negative", "positive")
"""Names of the labels 0 and 1."""


def answers(logits: np.ndarray) -> np.ndarray:
    """int64 [n]: the likelier class, 1 if P(1) > 0.5, from logits [n]."""
    return (logits > 0).astype(np.int64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """float64 [n]: P(1), the logistic sigmoid of logits [n], without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def confusion(labels: np.ndarray, answered: np.ndarray) -> dict[str, int]:
    """Counts of the four outcomes; "positive" is label 1, sum >= threshold."""
    labels, answered = labels.astype(bool), answered.astype(bool)
    return {
        "tn": int((~labels & ~answered).sum()),
        "fp": int((~labels & answered).sum()),
        "fn": int((labels & ~answered).sum()),
        "tp": int((labels & answered).sum()),
    }


def collapsed(cells: dict[str, int]) -> str | None:
    """The class that every series is answered with, from `CLASSES`; None if both are."""
    answered = (cells["tn"] + cells["fn"], cells["tp"] + cells["fp"])
    return None if all(answered) else CLASSES[int(answered[1] > 0)]


def interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    Args:
      successes: in [0, trials].
      trials: at least 1.
      confidence: in (0, 1).
    """
    import scipy.stats  # Imported late, as all that only the report needs.

    found = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)


def counts(labels: np.ndarray, positive_rate: float) -> dict[str, Any]:
    """Class counts of a split beside the exact law.

    Args:
      labels: {0, 1} [n], n >= 1.
      positive_rate: P(label = 1) by the law.

    Returns:
      `p_value`: how probable a count at least this far from the law's is (two-sided
      binomial test).
    """
    import scipy.stats

    size, positives = int(labels.size), int(labels.sum())
    test = scipy.stats.binomtest(positives, size, positive_rate)
    return {
        "size": size,
        "negatives": size - positives,
        "positives": positives,
        "negative_share": (size - positives) / size,
        "positive_share": positives / size,
        "expected_negatives": size * (1.0 - positive_rate),
        "expected_positives": size * positive_rate,
        "p_value": float(test.pvalue),
    }


def _absent(what: str, values: np.ndarray) -> list[str]:
    """For each class the problem that no value is of it, or an empty string."""
    present = [(values == c).any() for c in range(len(CLASSES))]
    return ["" if ok else f"no {what} is {name}" for ok, name in zip(present, CLASSES, strict=True)]


def scores(labels: np.ndarray, logits: np.ndarray, majority_class: int) -> dict[str, Any]:
    """Every score of the report for one split.

    Args:
      labels: {0, 1} [n], n >= 1.
      logits: float [n], finite.
      majority_class: the constant answer, 0 or 1; the other class is the minority.

    Returns:
      A nested dictionary of plain numbers.  `gain` is accuracy - majority_accuracy;
      `skill` is the share of the constant answer's errors that the network avoids,
      gain / (1 - majority_accuracy); below 0 it is worse than the constant answer.
      `constant_p_value` is McNemar's exact test of the network against the constant
      answer on the same series: they differ only where the network answers with the
      minority class.  `collapsed` names the class of a constant answer.  `undefined` gives
      the reason for every None, by name.

    Raises:
      ValueError: if a logit is not finite.
    """
    import scipy.stats
    import sklearn.metrics as sk

    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    labels, exact = labels.astype(np.int64), logits.astype(np.float64)
    answered, p = answers(logits), probabilities(logits)
    cells = confusion(labels, answered)
    accuracy = float((labels == answered).mean())
    constant = float((labels == majority_class).mean())
    minority = labels != majority_class
    differ, gains = (
        int((answered != majority_class).sum()),
        int((minority & (answered != majority_class)).sum()),
    )

    undefined: dict[str, str] = {}
    unlabelled, unanswered = _absent("label", labels), _absent("answer", answered)

    def score(name: str, compute: Callable[[], float], *problems: str) -> float | None:
        if reasons := [problem for problem in problems if problem]:
            undefined[name] = ", ".join(reasons)
            return None
        return float(compute())

    def each_class(
        name: str, compute: Callable[..., float], problems: list[str]
    ) -> dict[str, float | None]:
        return {
            of: score(
                f"{name}.{of}",
                lambda c=c: compute(labels, answered, pos_label=c, zero_division=0.0),  # type: ignore[misc]
                problems[c],
            )
            for c, of in enumerate(CLASSES)
        }

    return {
        "accuracy": accuracy,
        "accuracy_interval": list(interval(int((labels == answered).sum()), labels.size)),
        "confusion": cells,
        "collapsed": collapsed(cells),
        "majority_accuracy": constant,
        "gain": accuracy - constant,
        "skill": score(
            "skill",
            lambda: (accuracy - constant) / (1.0 - constant),
            unlabelled[1 - majority_class],
        ),
        "constant_p_value": float(scipy.stats.binomtest(gains, differ).pvalue) if differ else 1.0,
        "balanced_accuracy": score(
            "balanced_accuracy", lambda: sk.balanced_accuracy_score(labels, answered), *unlabelled
        ),
        "precision": each_class("precision", sk.precision_score, unanswered),
        "recall": each_class("recall", sk.recall_score, unlabelled),
        "recall_interval": {
            name: list(interval(hits, hits + misses)) if hits + misses else None
            for name, hits, misses in (
                ("negative", cells["tn"], cells["fp"]),
                ("positive", cells["tp"], cells["fn"]),
            )
        },
        "f1": each_class("f1", sk.f1_score, unlabelled),
        "matthews_correlation": score(
            "matthews_correlation",
            lambda: sk.matthews_corrcoef(labels, answered),
            *unlabelled,
            *unanswered,
        ),
        "roc_auc": score("roc_auc", lambda: sk.roc_auc_score(labels, logits), *unlabelled),
        "average_precision_minority": score(
            "average_precision_minority",
            lambda: sk.average_precision_score(
                minority, logits if majority_class == 0 else -logits
            ),
            unlabelled[1 - majority_class],
        ),
        "brier_score": float(np.mean((p - labels) ** 2)),
        "log_loss": float(np.logaddexp(0.0, np.where(labels == 1, -exact, exact)).mean()),
        "undefined": undefined,
    }
