"""Labels and logits of one split -> scores that survive class skew.

A score that the data leave undefined, because a class is absent from the labels or from
the answers, is None and has a reason; it is never a number.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics as sk

from sumrnn.scores.statistics import CONFIDENCE

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


def interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share of at least one trial.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    ends = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, "wilson")
    return float(ends.low), float(ends.high)


def counts(labels: np.ndarray, positive_rate: float) -> dict[str, Any]:
    """Class counts of labels {0, 1} [n], n >= 1, beside the exact law's P(label = 1).

    `p_value` is how probable a count at least this far from the law's is (two-sided binomial test).
    """
    size, positives = int(labels.size), int(labels.sum())
    return {
        "size": size,
        "negatives": size - positives,
        "positives": positives,
        "negative_share": (size - positives) / size,
        "positive_share": positives / size,
        "expected_negatives": size * (1.0 - positive_rate),
        "expected_positives": size * positive_rate,
        "p_value": float(scipy.stats.binomtest(positives, size, positive_rate).pvalue),
    }


def _absent(what: str, values: np.ndarray) -> list[str]:
    """For each class the problem that no value is of it, or an empty string."""
    return ["" if (values == c).any() else f"no {what} is {of}" for c, of in enumerate(CLASSES)]


def scores(labels: np.ndarray, logits: np.ndarray, majority_class: int) -> dict[str, Any]:
    """Every score of the report for one split.

    Args:
      labels: {0, 1} [n], n >= 1; of any real dtype.
      logits: [n], finite; of any real dtype.
      majority_class: the constant answer, 0 or 1; the other class is the minority.

    Returns:
      A nested dictionary of plain numbers.  `gain` is accuracy - majority_accuracy;
      `skill` is the share of the constant answer's errors that the network avoids,
      gain / (1 - majority_accuracy); below 0 it is worse than the constant answer.
      `constant_p_value` is McNemar's exact test of the network against the constant
      answer on the same series: they differ only where the network answers with the
      minority class.  `collapsed` names the class of a constant answer.  `undefined` gives
      the reason for every None, by name.
    """
    labels, logits = np.asarray(labels).astype(np.int64), np.asarray(logits).astype(np.float64)
    answered, p = answers(logits), probabilities(logits)
    cells = confusion(labels, answered)
    accuracy = float((labels == answered).mean())
    constant = float((labels == majority_class).mean())
    minority, differ = labels != majority_class, answered != majority_class
    gains, differing = int((minority & differ).sum()), int(differ.sum())
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, answered, labels=[0, 1], zero_division=0.0
    )

    undefined: dict[str, str] = {}
    unlabelled, unanswered = _absent("label", labels), _absent("answer", answered)
    no_minority = [unlabelled[1 - majority_class]]

    def score(
        name: str, problems: Sequence[str], compute: Callable[..., Any], *of: Any
    ) -> float | None:
        """What `compute` makes of the rest, or None and the reason where there is a problem."""
        if reasons := [problem for problem in problems if problem]:
            undefined[name] = ", ".join(reasons)
            return None
        return float(compute(*of))

    def each_class(name: str, values: np.ndarray, problems: list[str]) -> dict[str, float | None]:
        return {
            of: score(f"{name}.{of}", [problem], float, value)
            for of, value, problem in zip(CLASSES, values, problems, strict=True)
        }

    return {
        "accuracy": accuracy,
        "accuracy_interval": list(interval(int((labels == answered).sum()), labels.size)),
        "confusion": cells,
        "collapsed": collapsed(cells),
        "majority_accuracy": constant,
        "gain": accuracy - constant,
        "skill": score("skill", no_minority, lambda: (accuracy - constant) / (1.0 - constant)),
        "constant_p_value": (
            float(scipy.stats.binomtest(gains, differing).pvalue) if differing else 1.0
        ),
        "balanced_accuracy": score(
            "balanced_accuracy", unlabelled, sk.balanced_accuracy_score, labels, answered
        ),
        "precision": each_class("precision", precision, unanswered),
        "recall": each_class("recall", recall, unlabelled),
        "recall_interval": {
            name: list(interval(hits, hits + misses)) if hits + misses else None
            for name, hits, misses in (
                ("negative", cells["tn"], cells["fp"]),
                ("positive", cells["tp"], cells["fn"]),
            )
        },
        "f1": each_class("f1", f1, unlabelled),
        "matthews_correlation": score(
            "matthews_correlation", unlabelled + unanswered, sk.matthews_corrcoef, labels, answered
        ),
        "roc_auc": score("roc_auc", unlabelled, sk.roc_auc_score, labels, logits),
        "average_precision_minority": score(
            "average_precision_minority",
            no_minority,
            sk.average_precision_score,
            minority,
            -logits if majority_class else logits,
        ),
        "brier_score": float(np.mean((p - labels) ** 2)),
        "log_loss": float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean()),
        "undefined": undefined,
    }
