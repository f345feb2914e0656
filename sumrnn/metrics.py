"""Labels and logits of one split -> scores that survive class skew.

A score that the data leave undefined, because a class is absent from the labels or from
the answers, is None and has a reason; it is never a number.
"""

from __future__ import annotations

import math
import warnings
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


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def scores(labels: np.ndarray, logits: np.ndarray, majority_class: int) -> dict[str, Any]:
    """Every score of the report for one split.

    Args:
      labels: {0, 1} [n], n >= 1.
      logits: float [n], finite.
      majority_class: the constant answer, 0 or 1; the other class is the minority.

    Returns:
      A nested dictionary of plain numbers.  `skill` is the share of the constant
      answer's errors that the network avoids, (accuracy - majority_accuracy) /
      (1 - majority_accuracy).  `undefined` gives the reason for every None, by name.

    Raises:
      ValueError: if a logit is not finite.
    """
    import sklearn.metrics

    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    labels, answered, p = labels.astype(np.int64), answers(logits), probabilities(logits)
    cells = confusion(labels, answered)
    tn, fp, fn, tp = (cells[name] for name in ("tn", "fp", "fn", "tp"))
    size, hits = labels.size, tn + tp
    accuracy, constant = hits / size, float((labels == majority_class).mean())
    minority, minority_p = 1 - majority_class, p if majority_class == 0 else 1.0 - p
    both_labelled = bool(tn + fp) and bool(fn + tp)
    both_answered = bool(tn + fn) and bool(fp + tp)

    found: dict[str, Any] = {
        "accuracy": accuracy,
        "accuracy_interval": list(interval(hits, size)),
        "confusion": cells,
        "majority_accuracy": constant,
        "skill": _ratio(accuracy - constant, 1.0 - constant),
        "balanced_accuracy": None,
        "precision": {"negative": _ratio(tn, tn + fn), "positive": _ratio(tp, tp + fp)},
        "recall": {"negative": _ratio(tn, tn + fp), "positive": _ratio(tp, tp + fn)},
        "f1": {
            "negative": _ratio(2 * tn, 2 * tn + fn + fp),
            "positive": _ratio(2 * tp, 2 * tp + fn + fp),
        },
        "matthews_correlation": None,
        "roc_auc": None,
        "average_precision_minority": None,
        "brier_score": float(sklearn.metrics.brier_score_loss(labels, p, pos_label=1)),
        "log_loss": float(np.logaddexp(0.0, np.where(labels, -logits, logits)).mean()),
    }
    if both_labelled:
        found["balanced_accuracy"] = float(sklearn.metrics.balanced_accuracy_score(labels, answered))
        found["roc_auc"] = float(sklearn.metrics.roc_auc_score(labels, logits))
        if both_answered:
            found["matthews_correlation"] = float(
                sklearn.metrics.matthews_corrcoef(labels, answered)
            )
    if (labels == minority).any():
        found["average_precision_minority"] = float(
            sklearn.metrics.average_precision_score(labels == minority, minority_p)
        )
    return found | {"undefined": _reasons(found, cells)}
