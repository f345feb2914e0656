import dataclasses
import json
from typing import Annotated, Any, Literal

import hypothesis
import hypothesis.strategies as st
import pytest

from sumrnn import fields
from sumrnn.errors import UserError
from sumrnn.fields import Pattern, Range


@dataclasses.dataclass(frozen=True)
class Inner:
    share: Annotated[float, Range(0.25, 0.75, "a share")] = 0.5

    def __post_init__(self) -> None:
        fields.check(self)


@dataclasses.dataclass(frozen=True)
class Outer:
    count: Annotated[int, Range(1, 9)] = 1
    word: Annotated[str, Pattern("[a-z]+", "small letters")] = "a"
    kind: Literal["x", "y"] = "x"
    maybe: Annotated[int, Range(0, 3)] | None = None
    inner: Inner = Inner()
    many: tuple[Annotated[int, Range(0, 3)], ...] = ()
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        fields.check(self)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, r"^count = 0: must be between 1 and 9$"),
        ({"count": 1.0}, r"^count = 1\.0: must be an integer$"),
        ({"count": True}, r"^count = True: must be an integer$"),
        ({"word": "A"}, r"^word = 'A': must be small letters$"),
        ({"word": 1}, r"^word = 1: must be a str \(int is not an instance of str\)$"),
        ({"kind": "z"}, r"^kind = 'z': must be 'x' or 'y'$"),
        ({"maybe": 4}, r"^maybe = 4: must be between 0 and 3$"),
        ({"inner": 3}, r"^inner = 3: must be a Inner$"),
        ({"many": [1]}, r"^many = \[1\]: must be a tuple \(list is not a tuple\)$"),
        ({"many": (1, "2")}, r"^many = .*: must be a tuple \(item 1 .* not an instance of int\)$"),
        ({"named": 7}, r"^named = 7: must be a dict \(int is not a dict\)$"),
        ({"named": {"a": 3}}, r"^named = .*: must be a dict \(value of key 'a' .*Inner\)$"),
    ],
)
def test_what_a_field_may_not_be_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Outer(**values)


@pytest.mark.parametrize("share", [0.2, 0.8, float("nan"), float("inf"), "0.5", None, True])
def test_the_range_stands_beside_the_field(share: Any) -> None:
    with pytest.raises(UserError, match=r"^share = .*: must be (between 0\.25|a finite number)"):
        Inner(share)


def test_a_range_of_a_choice_counts() -> None:
    @dataclasses.dataclass(frozen=True)
    class Choice:
        kind: Annotated[Literal["x", "y"], "marked"] = "x"

    fields.check(Choice("y"))
    with pytest.raises(UserError, match=r"^kind = 'z': must be 'x' or 'y'"):
        fields.check(Choice("z"))  # type: ignore[arg-type]


@hypothesis.given(
    st.integers(1, 9),
    st.none() | st.integers(0, 3),
    st.lists(st.integers(0, 3)),
    st.dictionaries(st.text(max_size=3), st.floats(0.25, 0.75)),
)
def test_json_there_and_back(
    count: int, maybe: int | None, many: list[int], named: dict[str, float]
) -> None:
    inner = {name: Inner(share) for name, share in named.items()}
    outer = Outer(count, maybe=maybe, many=tuple(many), named=inner)
    assert fields.from_dict(Outer, json.loads(json.dumps(fields.to_dict(outer)))) == outer


@hypothesis.given(st.sampled_from([f.name for f in dataclasses.fields(Outer)]), ANYTHING)
def test_foreign_values_are_taken_or_refused_in_one_line(name: str, value: Any) -> None:
    read = fields.to_dict(Outer()) | {name: value}
    told = ""
    try:
        fields.from_dict(Outer, read)
    except UserError as error:
        told = str(error)
    assert told.isprintable()
    assert not told or name in told or name == "inner"
