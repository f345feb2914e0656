"""report.html, of a run and of an experiment: one file, for everybody."""

import dataclasses
import functools
import html.parser
import pathlib
import re
import unittest.mock
from collections.abc import Iterable

import pytest

from sumrnn.config import TaskConfig
from sumrnn.report import experiment, page, run
from sumrnn.runs import files
from sumrnn.runs.folder import REPORT_HTML, REPORT_MD
from sumrnn.runs.results import Run
from tests.report import test_experiment, test_run

NASTY = (
    '<script>alert("&")</script> ![scores](http://evil.org/x.png) [a](/b) <img src=x> | `a` *b* #'
)


def write_run(task: TaskConfig = test_run.SHEET) -> dict[str, str]:
    """The texts of the report of a run, by their names."""

    class Folder:
        path = pathlib.Path("run")

        def load(self) -> Run:
            return test_run.make_run(task)

    with unittest.mock.patch.object(files, "write_report") as wrote:
        run.write(Folder())  # type: ignore[arg-type]
    return dict(wrote.call_args.args[1])


@functools.cache
def texts(kind: str) -> dict[str, str]:
    """Those of a run, or of an experiment with an awkward question and runs that lack."""
    if kind == "run":
        return write_run()
    asked = dataclasses.replace(test_experiment.EXPERIMENT, question=NASTY)
    folders = test_experiment.lacking(asked)
    test_experiment.write(folders, drawn=True)
    return folders.texts


@pytest.fixture(params=["run", "experiment"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def written(kind: str) -> str:
    return texts(kind)[REPORT_HTML]


class Parsed(html.parser.HTMLParser):
    """The elements of a page, and the text that a person reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Iterable[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.hidden = tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.words += [] if self.hidden else [data]

    def all(self, attribute: str) -> list[str]:
        found = (attributes.get(attribute) for _, attributes in self.elements)
        return [value for value in found if value is not None]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def test_a_page_needs_no_other_file(written: str) -> None:
    parsed = Parsed(written)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"img", "link", "iframe", "object", "embed", "base", "form", "video"}
    assert parsed.all("src") == parsed.all("srcset") == []
    links = {link for link in parsed.all("href") if not link.startswith(("#", "data:image/png;"))}
    assert links <= {"runs.csv"}
    assert "@import" not in written
    assert all(place.startswith("#") for place in re.findall(r"url\((.)", written))
    (policy,) = (value for value in parsed.all("content") if "default-src" in value)
    assert policy.startswith("default-src 'none';")
    assert len(written.encode()) < 300_000


def test_every_id_is_unique_and_every_reference_leads_to_one(written: str) -> None:
    parsed = Parsed(written)
    ids = parsed.all("id")
    assert len(ids) == len(set(ids)) > 20
    references = [link[1:] for link in parsed.all("href") if link.startswith("#")]
    references += re.findall(r"url\(#([^)]*)\)", written) + parsed.all("aria-labelledby")
    assert set(references) <= set(ids)
    headings = [attributes["id"] for tag, attributes in parsed.elements if tag == "h2"]
    assert headings == references[: len(headings)]


def test_a_page_says_and_shows_what_the_markdown_does(kind: str, written: str) -> None:
    markdown = texts(kind)[REPORT_MD if kind == "run" else experiment.SUMMARY_MD]
    parsed = Parsed(written)
    cells = [cell.strip() for line in markdown.splitlines() for cell in line[1:-1].split(" | ")]
    numbers = {cell for cell in cells if re.fullmatch(r"[−\d].*", cell)}
    assert len(numbers) > 20
    assert all(number in parsed.text for number in numbers)
    figures = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    names = re.findall(r"!\[(\w+)\]\(figures", markdown)
    assert [figure["aria-labelledby"] for figure in figures] == [f"caption.{n}" for n in names]
    assert {figure["role"] for figure in figures} == {"img"}
    assert ("1,996 are answered rightly (99.80 %)" in parsed.text) == (kind == "run")


def test_what_a_name_holds_is_text() -> None:
    written = texts("experiment")[REPORT_HTML]
    assert written.count("<script>") == written.count("</script>") == 1  # The page's.
    assert NASTY in Parsed(written).text
    assert written.count("scores.png") == 0
    assert texts("experiment")[experiment.SUMMARY_MD].count("scores.png") == 1
    assert '<figure id="figure.scores">' in written.split("Paired differences</h2>")[1]
    text = page.render("# <u>\n\n## <u>\n\n## <u>\n", {}, {}, sections={"<i>": ""})
    assert not re.search("<[iu]>", text)
    assert Parsed(text).all("href") == ["#u-", "#u--", "#i"]


def test_a_picture_that_is_not_there_is_its_name() -> None:
    text = page.render("# A\n\n![gone](figures/gone.png)\n\nb\n", {}, {})
    assert Parsed(text).text.endswith("gone b")
    assert "gone.png" not in text


def test_every_table_says_what_it_is_and_what_its_heads_are_of(written: str) -> None:
    titles = []
    for text in re.findall(r"<table.*?</table>", written, re.S):
        titles += re.findall(r"<caption>(.+)</caption>", text)
        head, *rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
        assert len(re.findall("<t[hd]", head)) == head.count('scope="col"')
        assert all(row.strip().startswith('<th scope="row"') for row in rows)
        assert all(row.count("<th") == 1 for row in rows)
    assert len(titles) == len(set(titles)) == written.count("<table") > 3
    assert "tabindex" not in written  # The script gives it to what scrolls.


def test_a_name_with_hyphens_is_one_piece() -> None:
    shown = page.render("# A\n\n| a-1 − b.2-c |\n| --- |\n| d-e & f |\n", {}, {})
    assert ">a-1</span> − <span" in shown
    assert ">b.2-c</span>" in shown
    assert ">d-e</span> &amp; f" in shown
    picture = {"x": (b"", "<svg/>")}
    figure = page.render("# A\n\n![x](x.png)\n", picture, {"x": "9 % (cells-8), <b>"})
    assert '9\N{NO-BREAK SPACE}% <span class="name">(cells-8),</span> &lt;b&gt;' in figure


def test_the_table_of_an_experiment_has_its_runs() -> None:
    written = texts("experiment")[REPORT_HTML]
    assert "<p>All 6 runs, by seed.</p>" in written
    accuracy = test_experiment.accuracies(test_experiment.Folders(), "fast")[0]
    row = '<tr><th scope="row">{}</th><td>0</td><td>{}</td><td>{}</td>'
    slow, fast = (
        row.format("slow", "unfinished", ""),
        row.format("fast", "finished", f"{accuracy:.4f}"),
    )
    assert 0 < written.index(slow) < written.index(fast)


def test_the_table_of_a_large_experiment_has_a_limit_and_says_so() -> None:
    runs = test_experiment.collect(test_experiment.Folders())
    rows = [row | {"seed": seed} for seed in range(5_000) for row in runs.rows[:2]]
    html = experiment.table(dataclasses.replace(runs, rows=rows))
    assert "<td>499</td>" in html
    assert "<td>500</td>" not in html
    assert "The 1,000 runs of the lowest seeds; runs.csv has all 10,000." in html
    assert len(html) < 150_000
