"""Numbers say what they are, and texts what they say."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from markdown_it import MarkdownIt

from sumrnn.report import words

SHARES = st.floats(0, 1).filter(lambda x: x == 0 or x > words.ROUNDING)
TEXTS = st.text("a1 .)(!#*_~-+=<>[]|&;`\\:/$\"'é", max_size=40) | st.sampled_from(
    ["![scores](x.png)", "[a](http://evil.org)", "<http://evil.org>", "[a]: /x", "&lt;", "1. a"]
)


def read(text: str) -> float:
    """The value that a person reads."""
    number = float(text.removesuffix(" %").replace("−", "-").replace(",", ""))
    return number / 100 if text.endswith("%") else number


@given(SHARES, st.integers(0, 5), st.sampled_from([1, -1]))
@example(4e-7, 4, 1)
@example(0.99999996, 2, 1)
@example(0.1, 0, 1)
def test_only_0_and_1_read_as_0_and_1(share: float, digits: int, sign: int) -> None:
    """And what is read is as near as the digits promise."""
    value, near = sign * share, abs(abs(share) - 1) < words.ROUNDING
    for text, digit in (
        (words.number(value, digits), digits),
        (words.percent(value, digits), digits + 2),
        (words.count(value, digits), digits),
    ):
        found = read(text)
        assert (found == 0) == (share == 0), text
        if "," not in text and text != words.count(value, digits):
            assert (abs(found) == 1) == near, text
        assert found == pytest.approx(value, rel=0.05, abs=0.5001 * 10**-digit)
        assert not re.fullmatch(r"[−-]0*\.?0*( %)?", text)


@pytest.mark.parametrize("noise", [-0.0, -2.4e-15, -1e-300])
def test_what_rounding_leaves_of_nothing_is_nothing(noise: float) -> None:
    assert words.percent(noise, 4) == "0.0000 %"
    assert words.number(noise) == "0.0000"
    assert words.number(1 + noise) == "1.0000"
    assert words.percent(1 - noise) == "100.00 %"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.number(0.1, 0), "0.10"),
        (words.number(80.4, 0), "80"),
        (words.number(4.6e-4), "0.00046"),
        (words.number(2e-6), "2.0e−06"),
        (words.number(0.002, 2), "0.0020"),
        (words.general(1_104.3, 3), "1,104"),
        (words.general(0.996, 2), "0.996"),
        (words.general(1e-300, 2), "1e−300"),
        (words.number(1e-300), "1.0e−300"),
        (words.percent(1e-300), "0.00 %"),
        (words.general(-0.0, 2), "0"),
        (words.general(999.6, 3), "1,000"),
        (words.general(-0.99996, 2), "−0.99996"),
        (words.percent(3e-5), "0.003 %"),
        (words.span([0.9999, 0.999996]), "99.9900 % to 99.9996 %"),
        (words.span([0, 0.4345]), "0.00 % to 43.45 %"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


@given(TEXTS)
def test_a_text_is_shown_as_it_is_whatever_it_holds(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(words.plain(text))
    assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close"}
    children = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in children} <= {"text"}
    assert "".join(child.content for child in children) == text.strip()


@pytest.mark.parametrize(
    "text", ["http://evil.org", "www.evil.org", "WWW.evil.org", ":cat:", "$x$"]
)
def test_addresses_and_formulas_are_not_for_programs_that_look_for_them(text: str) -> None:
    assert re.search(r"(?<!\\)(:/|:c|\$)|www\.", words.plain(text), re.I) is None


def test_an_ordinary_text_stays_as_it_is() -> None:
    text = "Does it help (by 0.5 %), over 32 seeds; or isn't snake_case: the reason?"
    assert words.plain(text) == text
