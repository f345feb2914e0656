import dataclasses

import hypothesis
import hypothesis.strategies as st
import pytest

from sumrnn.config import Config
from sumrnn.errors import UserError
from sumrnn.study.experiment import Experiment, parse_seeds
from tests.conftest import SMALL

OTHER = dataclasses.replace(SMALL, data_seed=1)  # It needs no other program.
UNLIKE = dataclasses.replace(SMALL, task=dataclasses.replace(SMALL.task, threshold=7))
TWO = Experiment("two", "Which?", {"a": SMALL, "b": OTHER})


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": {"../a": Config()}},
        {"conditions": {}},
        {"plots": ("pie",)},
        {"conditions": {"a": SMALL, "b": UNLIKE}, "plots": ("variance",)},
        {"scores": ()},
        {"scores": ("accuracy", "accuracy")},
        {"question": "two\nlines"},
        {"name": "a$\\foo$"},
        {"baselines": {"a": "c"}},
        {"baselines": {"a": "a"}},
        {"references": {"c": {"accuracy": 0.5}}},
        {"references": {"a": {"accuracy": float("nan")}}},
    ],
)
def test_impossible_declarations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(TWO, **changes)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", (7,)), ("0:3", (0, 1, 2)), ("3,5,8:10", (3, 5, 8, 9)), (" 1 , 0", (1, 0))],
)
def test_lists_of_seeds_are_read(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds("seeds", text) == seeds


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=4)
)
def test_ranges_of_seeds_are_read_unless_they_overlap(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}:{first + size}" for first, size in ranges)
    expected = [seed for first, size in ranges for seed in range(first, first + size)]
    if len(set(expected)) == len(expected):
        assert parse_seeds("seeds", text) == tuple(expected)
    else:
        with pytest.raises(UserError, match="must be given once each"):
            parse_seeds("seeds", text)


@hypothesis.given(st.text(alphabet="0123456789:,-+. ax²٣\n", max_size=12))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    if set(text) <= set("0123456789:, \n"):  # May be a list; the tests above know which.
        return
    with pytest.raises(UserError, match=r"\Aseeds = .*\Z"):
        parse_seeds("seeds", text)
