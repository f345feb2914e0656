import dataclasses
import json
from typing import Annotated, Any, Literal, TypedDict

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sumrnn import fields
from sumrnn.errors import UserError
from sumrnn.fields import Pattern, Range

Digit = Annotated[int, Range(0, 3, "few")]
Word = Annotated[str, Pattern("[a-z]+", "small letters")]


@dataclasses.dataclass(frozen=True)
class Inner:
    share: Annotated[float, Range(0.25, 0.75)] = 0.5

    def __post_init__(self) -> None:
        fields.check(self)


class Entry(TypedDict):
    text: str


@dataclasses.dataclass(frozen=True)
class Outer:
    count: Digit = 1
    word: Word = "a"
    kind: Annotated[Literal["x", "y"], "marked"] = "x"
    maybe: Digit | None = None
    inner: Inner = Inner()
    many: tuple[Digit, ...] = ()
    named: dict[Word, Inner] = dataclasses.field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        fields.check(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 4}, r"count = 4: must be between 0 and 3 \(few\)"),
        ({"count": 1.0}, r"count = 1\.0: must be an integer"),
        ({"word": "a1"}, "word = 'a1': must be small letters"),
        ({"word": 1}, "word = 1: must be a str"),
        ({"kind": "z"}, "kind = 'z': must be 'x' or 'y'"),
        ({"maybe": 4}, r"maybe = 4: must be between 0 and 3 \(few\)"),
        ({"inner": 3}, "inner = 3: must be an object with the fields share"),
        ({"inner": {"share": 1.0}}, r"share = 1\.0: must be between 0\.25 and 0\.75"),
        ({"inner": {"share": float("nan")}}, "share = nan: must be a finite number"),
        ({"many": 7}, "many = 7: must be a tuple"),
        ({"many": (1, "2")}, "many = '2': must be an integer"),
        ({"named": 7}, "named = 7: must be a dict"),
        ({"named": {"A": Inner()}}, "named = 'A': must be small letters"),
        ({"named": {"a": {}}}, "share = None: must be given in named"),
        ({"entries": [{"text": 3}]}, "text = 3: must be a str"),
        ({"entries": [{"text": "", "more": 1}]}, "more = 1: must be left out; the fields are text"),
        ({"entries": [{"a\nb": 1}]}, r"'a\\nb' = 1: must be left out; the fields are text"),
    ],
)
def test_what_a_field_may_not_be_is_named(values: dict[str, Any], message: str) -> None:
    for make in (lambda: Outer(**values), lambda: dataclasses.replace(Outer(), **values)):
        with pytest.raises(UserError, match=f"^{message}$"):
            make()


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**5000), [10**5000], "X" * 10**6, "\ud800\n\x85\u2028", np.zeros((50, 50))],
    ids=["long", "longest", "in a list", "text", "lines", "array"],
)
def test_any_value_is_shown_in_one_short_line(value: object) -> None:
    for field in fields.to_dict(Outer()):
        values: dict[str, Any] = {field: value}
        with pytest.raises(UserError, match=f"^{field} = ") as caught:
            Outer(**values)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


@hypothesis.given(
    st.none() | st.integers(0, 3),
    st.lists(st.integers(0, 3)),
    st.dictionaries(st.text("abc", min_size=1), st.floats(0.25, 0.75)),
    st.lists(st.text()),
)
def test_json_there_and_back(
    maybe: int | None, many: list[int], named: dict[str, float], texts: list[str]
) -> None:
    inner = {name: Inner(share) for name, share in named.items()}
    entries = tuple(Entry(text=text) for text in texts)
    outer = Outer(maybe=maybe, many=tuple(many), named=inner, entries=entries)
    assert fields.from_dict(Outer, json.loads(json.dumps(fields.to_dict(outer)))) == outer
