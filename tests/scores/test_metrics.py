import math
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import sklearn.metrics as sk

from sumrnn.scores import metrics

# Ten series: 3 negatives (2 found), 7 positives (6 found).
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1], np.uint8)
LOGITS = np.array([-2, -1, 1, -0.5, 0.5, 2, 3, 4, 5, 6], np.float32)


def test_hand_counted_scores() -> None:
    scored = metrics.scores(LABELS, LOGITS, majority_class=1)
    assert scored["confusion"] == {"tn": 2, "fp": 1, "fn": 1, "tp": 6}
    assert scored["accuracy"] == pytest.approx(8 / 10)
    assert scored["majority_accuracy"] == pytest.approx(7 / 10)
    assert scored["skill"] == pytest.approx(1 / 3)
    assert scored["balanced_accuracy"] == pytest.approx((2 / 3 + 6 / 7) / 2)
    assert scored["precision"] == pytest.approx({"negative": 2 / 3, "positive": 6 / 7})
    assert scored["recall"] == pytest.approx({"negative": 2 / 3, "positive": 6 / 7})
    assert scored["f1"] == pytest.approx({"negative": 2 / 3, "positive": 6 / 7})
    assert scored["matthews_correlation"] == pytest.approx((2 * 6 - 1) / math.sqrt(3 * 7 * 3 * 7))
    # Of the 21 pairs of a negative and a positive, -0.5 and 0.5 stand below the negative 1.
    assert scored["roc_auc"] == pytest.approx(19 / 21)
    # Negatives by falling confidence: found at ranks 1, 2 and 5.
    assert scored["average_precision_minority"] == pytest.approx((1 + 1 + 3 / 5) / 3)
    # The network answers "negative" three times: twice rightly.  P(2 of 3 or as rare) = 1.
    assert scored["constant_p_value"] == pytest.approx(1.0)
    assert scored["undefined"] == {}


@pytest.mark.parametrize(("shift", "name"), [(0, None), (100, "positive"), (-100, "negative")])
def test_one_answer_to_all_is_a_collapse(shift: float, name: str | None) -> None:
    assert metrics.scores(LABELS, LOGITS + np.float32(shift), 1)["collapsed"] == name


def test_mcnemar_counts_only_where_the_answers_differ() -> None:
    labels = np.array([0] * 8 + [1] * 92)
    logits = np.where(labels == 1, 3.0, -3.0)
    # All 8 of 8 differing answers are gains: p = 2 / 2^8.
    assert metrics.scores(labels, logits, 1)["constant_p_value"] == pytest.approx(2 / 2**8)


@st.composite
def labels_and_logits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 60))
    labels = draw(hnp.arrays(np.uint8, n, elements=st.integers(0, 1)))
    logits = draw(hnp.arrays(np.float32, n, elements=st.floats(-8, 8, width=32)))
    return labels, logits


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(labels_and_logits(), st.integers(0, 1))
def test_scores_are_those_of_scikit_learn_or_undefined(
    data: tuple[np.ndarray, np.ndarray], majority: int
) -> None:
    labels, logits = data
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    predicted = (logits > 0).astype(int)
    scored = metrics.scores(labels, logits, majority)
    counts = np.bincount(2 * labels.astype(int) + predicted, minlength=4).tolist()
    assert scored["confusion"] == dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True))
    assert scored["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    both = 0 < labels.sum() < labels.size
    both_predicted = both and 0 < predicted.sum() < predicted.size
    expected = {
        "brier_score": sk.brier_score_loss(labels, p, pos_label=1),
        "log_loss": sk.log_loss(labels, p, labels=[0, 1]),
        "roc_auc": sk.roc_auc_score(labels, logits) if both else None,
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted) if both else None,
        "matthews_correlation": (
            sk.matthews_corrcoef(labels, predicted) if both_predicted else None
        ),
    }
    for c, name in enumerate(metrics.CLASSES):
        present = (labels == c).any()
        for score, compute, defined in (
            ("precision", sk.precision_score, (predicted == c).any()),
            ("recall", sk.recall_score, present),
            ("f1", sk.f1_score, present),
        ):
            value = compute(labels, predicted, pos_label=c, zero_division=0.0) if defined else None
            expected[f"{score}.{name}"] = value
        assert (scored["recall_interval"][name] is None) == (not present)
    for name, value in expected.items():
        score, _, class_name = name.partition(".")
        computed = scored[score][class_name] if class_name else scored[score]
        assert computed == (None if value is None else pytest.approx(value, abs=1e-6)), name
        assert (name in scored["undefined"]) == (value is None)


@pytest.mark.parametrize("present", [0, 1])
def test_an_absent_class_leaves_no_number(present: int) -> None:
    labels = np.full(6, present, np.uint8)
    logits = np.full(6, 2.0 * present - 1.0)
    scored = metrics.scores(labels, logits, majority_class=present)
    absent = metrics.CLASSES[1 - present]
    assert scored["accuracy"] == 1.0
    for name in ("skill", "balanced_accuracy", "matthews_correlation", "roc_auc"):
        assert scored[name] is None
        assert f"no label is {absent}" in scored["undefined"][name]
    assert scored["average_precision_minority"] is None
    assert scored["recall"][absent] is scored["precision"][absent] is scored["f1"][absent] is None
    assert scored["undefined"][f"precision.{absent}"] == f"no answer is {absent}"


@hypothesis.given(st.integers(1, 5_000), st.floats(0, 1))
def test_wilson_interval_follows_the_formula(trials: int, share: float) -> None:
    successes = round(trials * share)
    p, z = successes / trials, 1.959963984540054
    center = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    low, high = metrics.interval(successes, trials)
    assert (low, high) == pytest.approx((max(center - half, 0), min(center + half, 1)), abs=1e-9)


def test_counts_beside_the_law() -> None:
    """The notebook's own test split: 1,817 of 2,000 lie three standard errors below its law."""
    scored = metrics.class_counts(np.repeat([1, 0], [1_817, 183]), 0.926136211979)
    assert (scored["positives"], scored["negatives"], scored["size"]) == (1_817, 183, 2_000)
    assert scored["expected_positives"] == pytest.approx(1852.27, abs=0.01)
    assert scored["p_value"] == pytest.approx(0.0036, abs=5e-5)


@pytest.mark.parametrize("logit", [800.0, -800.0])
def test_extreme_logits_do_not_overflow(logit: float) -> None:
    scored = metrics.scores(LABELS, np.full(10, logit), 1)
    assert math.isfinite(scored["log_loss"])
    assert scored["brier_score"] == pytest.approx(0.3 if logit > 0 else 0.7)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float16", "float64", ml_dtypes.bfloat16])
def test_any_real_dtype_gives_the_same_scores(dtype: Any) -> None:
    logits = np.array([0, 3, 2, 1, 7, 5, 4, 6, 8, 9])
    expected = metrics.scores(LABELS, logits.astype(np.float32), 1)
    assert metrics.scores(LABELS.astype(bool), logits.astype(dtype), 1) == expected
