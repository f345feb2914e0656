"""Scores of one split, from its labels and logits, that survive class skew.

A score that is undefined, because a class is absent from the labels or from the predictions, is
None and has a reason; it is never a number.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics as sk

from sumrnn.scores.statistics import CONFIDENCE

CLASSES = ("negative", "positive")
"""The names of the labels 0 and 1."""


def predicted_labels(logits: np.ndarray) -> np.ndarray:
    """The predicted labels, int64 [n], of logits [n]: 1 where P(label = 1) > 0.5, else 0."""
    return (logits > 0).astype(np.int64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """P(label = 1), float64 [n], of logits [n]: their logistic sigmoid, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def collapsed(confusion: dict[str, int]) -> str | None:
    """The class, from `CLASSES`, that is predicted for every series; None if both occur."""
    predicted = (confusion["tn"] + confusion["fn"], confusion["tp"] + confusion["fp"])
    return None if all(predicted) else CLASSES[int(predicted[1] > 0)]


def interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval, (low, high), of the share of successes in at least one trial.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    ends = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, "wilson")
    return float(ends.low), float(ends.high)


def class_counts(labels: np.ndarray, positive_rate: float) -> dict[str, Any]:
    """The numbers of both classes in labels {0, 1} [n], n >= 1, beside those by the exact law.

    `positive_rate` is the law's P(label = 1).  `p_value` is the probability of a count at least as
    far from the law's (two-sided binomial test).
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


def _absences(noun: str, values: np.ndarray) -> list[str]:
    """For each class the sentence that no value is of it, or an empty string."""
    return [
        "" if (values == label).any() else f"no {noun} is {name}"
        for label, name in enumerate(CLASSES)
    ]


def scores(labels: np.ndarray, logits: np.ndarray, majority_class: int) -> dict[str, Any]:
    """All scores of a network on one split.

    Args:
      labels: {0, 1} [n], n >= 1; of any real dtype.
      logits: [n], finite; of any real dtype.
      majority_class: the label, 0 or 1, of the constant answer; the other class is the minority.

    Returns:
      A nested dictionary of plain numbers.  `confusion` counts the series by label and answer,
      of which 1, a sum of at least the threshold, is positive; `gain` is accuracy -
      majority_accuracy;
      `skill` is the share of the constant answer's errors that the network avoids,
      gain / (1 - majority_accuracy); below 0 it is worse than the constant answer.
      `constant_p_value` is McNemar's exact test of the network against the constant
      answer on the same series: they differ only where the network predicts the minority
      class.  `collapsed` names the class that is predicted for all series, if one is.
      `undefined` gives the reason for every None, by the score's name.
    """
    labels, logits = np.asarray(labels).astype(np.int64), np.asarray(logits).astype(np.float64)
    predicted, p = predicted_labels(logits), probabilities(logits)
    cells = sk.confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist()
    confusion = dict(zip(("tn", "fp", "fn", "tp"), cells, strict=True))
    accuracy = float((labels == predicted).mean())
    majority_accuracy = float((labels == majority_class).mean())
    gain = accuracy - majority_accuracy
    minority, differs = labels != majority_class, predicted != majority_class
    successes, trials = int((minority & differs).sum()), int(differs.sum())
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=[0, 1], zero_division=0.0
    )

    undefined: dict[str, str] = {}
    no_label, no_prediction = _absences("label", labels), _absences("answer", predicted)
    no_minority = [no_label[1 - majority_class]]

    def score(
        name: str, absences: Sequence[str], compute: Callable[..., Any], *arguments: Any
    ) -> float | None:
        """The score that `compute` returns; None, with its reason noted, if a class is absent."""
        if reasons := [absence for absence in absences if absence]:
            undefined[name] = ", ".join(reasons)
            return None
        return float(compute(*arguments))

    def by_class(name: str, values: np.ndarray, absences: list[str]) -> dict[str, float | None]:
        return {
            class_name: score(f"{name}.{class_name}", [absence], float, value)
            for class_name, value, absence in zip(CLASSES, values, absences, strict=True)
        }

    return {
        "accuracy": accuracy,
        "accuracy_interval": list(interval(int((labels == predicted).sum()), labels.size)),
        "confusion": confusion,
        "collapsed": collapsed(confusion),
        "majority_accuracy": majority_accuracy,
        "gain": gain,
        "skill": score("skill", no_minority, lambda: gain / (1.0 - majority_accuracy)),
        "constant_p_value": (
            float(scipy.stats.binomtest(successes, trials).pvalue) if trials else 1.0
        ),
        "balanced_accuracy": score(
            "balanced_accuracy", no_label, sk.balanced_accuracy_score, labels, predicted
        ),
        "precision": by_class("precision", precision, no_prediction),
        "recall": by_class("recall", recall, no_label),
        "recall_interval": {
            name: list(interval(hits, hits + misses)) if hits + misses else None
            for name, hits, misses in (
                ("negative", confusion["tn"], confusion["fp"]),
                ("positive", confusion["tp"], confusion["fn"]),
            )
        },
        "f1": by_class("f1", f1, no_label),
        "matthews_correlation": score(
            "matthews_correlation",
            no_label + no_prediction,
            sk.matthews_corrcoef,
            labels,
            predicted,
        ),
        "roc_auc": score("roc_auc", no_label, sk.roc_auc_score, labels, logits),
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
