"""report.html, of a run and of a batch: one file, for everybody."""

import dataclasses
import functools
import html.parser
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from sumrnn.config import TaskConfig
from sumrnn.report import batch, canvas, page, run, svg
from sumrnn.runs.folder import REPORT_HTML, REPORT_MD
from sumrnn.runs.results import Run
from tests.report import test_batch, test_run

NASTY = (
    '<script>alert("&")</script> ![scores](http://evil.org/x.png) [a](/b) <img src=x> | `a` *b* #'
)
BATCH = dataclasses.replace(test_batch.EXPERIMENT, question=NASTY)


def write_run(task: TaskConfig = test_run.SHEET) -> dict[str, str]:
    """The texts of the report of a run, by their names."""

    class Folder:
        def load(self) -> Run:
            return test_run.make_run(task)

        def write_report(self, texts: dict[str, str], pictures: Any, known: Any) -> None:
            self.texts = texts

    folder = Folder()
    run.write(folder)  # type: ignore[arg-type]
    return folder.texts


def write_batch() -> dict[str, str]:
    """The texts of the report of a batch with an awkward question and runs that lack."""
    folders = test_batch.Folders(BATCH)
    folders.run("slow", 0).ended, folders.run("fast", 2).ended = "unfinished", "diverged"
    test_batch.write(folders, drawn=True)
    return folders.texts


@functools.cache
def texts(kind: str) -> dict[str, str]:
    return write_run() if kind == "run" else write_batch()


@pytest.fixture(params=["run", "batch"])
def written(request: pytest.FixtureRequest) -> str:
    return texts(request.param)[REPORT_HTML]


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
    assert parsed.all("src") == []
    assert parsed.all("srcset") == []
    links = {link for link in parsed.all("href") if not link.startswith(("#", "data:image/png;"))}
    assert links <= {"runs.csv"}
    assert "@import" not in written
    assert all(place.startswith("#") for place in re.findall(r"url\((.)", written))
    (policy,) = (value for value in parsed.all("content") if "default-src" in value)
    assert policy.startswith("default-src 'none';")


def test_every_id_is_unique_and_every_reference_leads_to_one(written: str) -> None:
    parsed = Parsed(written)
    ids = parsed.all("id")
    assert len(ids) == len(set(ids)) > 20
    references = [link[1:] for link in parsed.all("href") if link.startswith("#")]
    references += re.findall(r"url\(#([^)]*)\)", written) + parsed.all("aria-labelledby")
    assert set(references) <= set(ids)
    headings = [attributes["id"] for tag, attributes in parsed.elements if tag == "h2"]
    assert headings == references[: len(headings)]


def test_a_page_is_small(written: str) -> None:
    assert len(written.encode()) < 300_000


@pytest.mark.parametrize("kind", ["run", "batch"])
def test_a_page_says_what_the_markdown_says(kind: str) -> None:
    markdown = texts(kind)[REPORT_MD if kind == "run" else batch.SUMMARY_MD]
    shown = Parsed(texts(kind)[REPORT_HTML]).text
    cells = [cell.strip() for line in markdown.splitlines() for cell in line[1:-1].split(" | ")]
    numbers = {cell for cell in cells if re.fullmatch(r"[−\d].*", cell)}
    assert len(numbers) > 20
    assert all(number in shown for number in numbers)
    for name in re.findall(r"!\[(\w+)\]\(figures", markdown):
        assert f'<figure id="figure.{name}">' in texts(kind)[REPORT_HTML]


def test_what_is_seen_in_a_picture_is_said_with_the_numbers_of_the_report() -> None:
    made = test_run.make_run(test_run.SHEET, wrong=9)
    said = run.captions(made, run.build(made))
    labels = made.parts["test"].labels
    assert f"{2_000 - 9:,} are answered rightly (99.55 %)" in said["confusion"]
    assert f"of {labels.sum():,} with sum ≥ 100" in said["confusion"]
    assert said["errors"].startswith("The test series that are answered wrongly, 9 of 2,000, have")
    total = sum(int((part.labels == 0).sum()) for part in made.parts.values())
    assert f"{total} have a sum < 100; the exact law expects 117.5" in said["sums"]
    found = Parsed(texts("run")[REPORT_HTML])
    named = [attributes for tag, attributes in found.elements if tag == "svg"]
    assert [of["aria-labelledby"] for of in named] == [f"caption.{name}" for name in run.FIGURES]
    assert {of["role"] for of in named} == {"img"}
    assert "1,996 are answered rightly (99.80 %)" in found.text
    none = test_run.make_run(test_run.SHEET, wrong=0)
    assert "Not one of 2,000" in run.captions(none, run.build(none))["errors"]


def test_what_is_seen_of_a_batch_is_said_with_its_numbers() -> None:
    collected = test_batch.collect(test_batch.Folders())
    summary = batch.build(collected)
    said = batch.captions(collected, summary)
    assert set(said) == set(test_batch.EXPERIMENT.plots)
    means = {
        name: summary["conditions"][name]["scores"]["accuracy"]["mean"] for name in ("slow", "fast")
    }
    low, high = sorted(means, key=lambda name: means[name])
    ends = f"accuracy {means[low]:.4f} ({low}) to {means[high]:.4f} ({high});"
    assert ends in said["scores"]
    assert "60.00 % (fast) to 60.00 % (slow)" in said["learning"]
    assert f"accuracy {means['slow']:.4f} and {means['fast']:.4f};" in said["skew"]


def test_what_a_name_holds_is_text() -> None:
    written = texts("batch")[REPORT_HTML]
    assert written.count("<script>") == written.count("</script>") == 1  # Our own.
    text = Parsed(written).text
    assert NASTY in text
    for form in (texts("batch")[batch.SUMMARY_MD], written):
        assert form.count("scores.png") == ("<html" not in form)
    assert '<figure id="figure.scores">' in written.split("Paired differences</h2>")[1]
    table = page.Table("<i>", "&", ('"',), [("<b>",)])
    text = page.render("# <u>\n\n## <u>\n\n## <u>\n", {}, {}, table)
    assert not re.search("<[biu]>", text)
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
    figure = page.render("# A\n\n![x](x.png)\n", {"x": "<svg/>"}, {"x": "9 % (cells-8), <b>"})
    assert '9\N{NO-BREAK SPACE}% <span class="name">(cells-8),</span> &lt;b&gt;' in figure


def test_the_table_of_a_batch_has_its_runs() -> None:
    collected = test_batch.collect(test_batch.Folders())
    table = batch.table(collected)
    assert table.note == "All 6 runs, by seed."
    assert [row[:3] for row in table.rows[:3]] == [
        ("slow", "0", "finished"),
        ("fast", "0", "finished"),
        ("slow", "1", "finished"),
    ]
    accuracies = test_batch.accuracies(test_batch.Folders(), "slow")
    assert [row[3] for row in table.rows[::2]] == [f"{x:.4f}" for x in accuracies]
    text = texts("batch")[REPORT_HTML]
    for name, seed, status in (("slow", 0, "unfinished"), ("fast", 2, "diverged")):
        row = f'<th scope="row">{name}</th><td>{seed}</td><td>{status}</td><td></td><td></td>'
        assert row in text


def test_the_table_of_a_large_batch_has_a_limit_and_says_so() -> None:
    collected = test_batch.collect(test_batch.Folders())
    rows = [row | {"seed": seed} for seed in range(5_000) for row in collected.rows[:2]]
    table = batch.table(dataclasses.replace(collected, rows=rows))
    assert [row[1] for row in table.rows[-2:]] == ["499", "499"]
    text = page.render("# A\n", {}, {}, table)
    assert "The 1,000 runs of the lowest seeds; runs.csv has all 10,000." in text
    assert len(text) < 150_000


def test_a_figure_of_very_many_points_stays_small() -> None:
    sizes = []
    for number in (100, 100_000):
        figure, (ax,) = canvas.blank()
        ax.plot(np.linspace(0, 1, number), np.random.default_rng(0).random(number), "o")
        found = svg.draw(figure, "many")
        sizes.append(len(found))
        assert ("<image" in found) == (number > svg.MANY)
    assert max(sizes) < 200_000
