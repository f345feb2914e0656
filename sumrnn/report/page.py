"""A report as a page: one HTML file that needs no other, for any screen and for paper."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from sumrnn.report import words

HYPHENATED = re.compile(r"\(?[\w.]+(-[\w.]+)+[),;:]*")
"""A name with hyphens, and the signs around it."""


def render(
    text: str,
    pictures: Mapping[str, tuple[bytes, str]],
    captions: Mapping[str, str],
    *,
    sections: Mapping[str, str] | None = None,
) -> str:
    """The page of a report in Markdown; an image becomes the figure of its name, if there is one.

    The captions say what is to be seen in the pictures (see `drawing.pictures`), and are their
    alternative texts.  HTML in the report is text like the rest; further sections, by their
    titles, are HTML and come last.
    """
    left = {name: svg for name, (_, svg) in pictures.items()}  # Each figure comes once.

    def image(_: Any, tokens: Sequence[Any], i: int, *__: Any) -> str:
        name = tokens[i].content
        svg, caption = left.pop(name, None), _unbroken(captions.get(name, ""))
        return words.render("figure.html.j2", name=name, svg=svg, caption=caption)

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", image)
    parser.add_render_rule("table_open", lambda _, tokens, i, *__: tokens[i].content)
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    parser.add_render_rule("text", lambda _, tokens, i, *__: _unbroken(tokens[i].content))
    tokens = parser.parse(text)
    contents: dict[str, str] = {}
    heading = ""
    for i, (before, inner, after) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        children = inner.children or ()
        if before.type == "heading_open":
            heading = "".join(child.content for child in children)
            before.attrSet("id", _enter(contents, heading))
        elif before.type == "table_open":
            title = f"{heading}, by {tokens[i + 4].content}"  # Of the first column.
            before.content = words.render("table.html.j2", title=title)
        elif before.type == "th_open":
            before.attrSet("scope", "col")
        elif before.type == "td_open" and tokens[i - 1].type == "tr_open":
            before.tag = after.tag = "th"
            before.attrSet("scope", "row")
        elif [child.type for child in children] == ["image"]:
            before.hidden = after.hidden = True  # A paragraph holds no figure.
    body = parser.renderer.render(tokens, parser.options, {})
    added = [(_enter(contents, title), title, html) for title, html in (sections or {}).items()]
    title = contents.pop(next(iter(contents)))
    values = {"title": title, "contents": contents, "body": body, "sections": added}
    return words.render("page.html.j2", **values)


def _unbroken(text: str) -> str:
    """Text as HTML; names with hyphens, and percentages, stay on one line that is long enough."""
    whole = HYPHENATED.sub(r'<span class="name">\g<0></span>', escapeHtml(text))
    return whole.replace(" %", "\N{NO-BREAK SPACE}%")


def _enter(contents: dict[str, str], heading: str) -> str:
    """Enters a heading into the contents, under an id of its own, which it returns."""
    name = re.sub(r"\W+", "-", heading.lower()).strip("-")
    while name in contents:
        name += "-"
    contents[name] = heading
    return name
