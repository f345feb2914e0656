"""A report as a page: one HTML file that needs no other, for any screen and for paper."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from sumrnn.report import words


class Table(NamedTuple):
    """A table of texts, which a reader can sort."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(
    text: str, svgs: Mapping[str, str], captions: Mapping[str, str], table: Table | None = None
) -> str:
    """The page of a report in Markdown; an image becomes the figure of its name, if there is one.

    The captions say what is to be seen in the figures, and are their alternative texts.  HTML in
    the report is text like the rest.
    """
    left = dict(svgs)

    def image(_: Any, tokens: Sequence[Any], i: int, *__: Any) -> str:
        name = tokens[i].content
        svg, caption = left.pop(name, None), captions.get(name)
        return words.render("figure.html.j2", name=name, svg=svg, caption=caption)

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", image)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0">\n<table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    tokens = parser.parse(text)
    contents: dict[str, str] = {}
    for before, inner, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if before.type == "heading_open":
            before.attrSet("id", _enter(contents, inner.content))
        elif [child.type for child in inner.children or ()] == ["image"]:
            before.hidden = after.hidden = True  # A paragraph holds no figure.
    body = parser.renderer.render(tokens, parser.options, {})
    table_id = table and _enter(contents, table.title)
    top, *_ = contents
    return words.render(
        "page.html.j2",
        title=contents.pop(top),
        contents=contents,
        body=body,
        table=table,
        table_id=table_id,
    )


def _enter(contents: dict[str, str], heading: str) -> str:
    """The id of a new heading; ids within figures have a dot, these none."""
    found = re.sub(r"\W+", "-", heading.lower()).strip("-")
    while found in contents:
        found += "-"
    contents[found] = heading
    return found
