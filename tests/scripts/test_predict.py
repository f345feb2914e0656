"""scripts/predict.py: a trained network answers series, of the command line or a stream."""

import dataclasses
import io
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special

import sumrnn
from sumrnn.exchange.predictor import Predictor
from sumrnn.models import network
from sumrnn.models.initializer import init
from tests.conftest import SMALL, Done, call, refused
from tests.models.test_network import numpy_logits

Trained = tuple[pathlib.Path, Done]


def given(monkeypatch: pytest.MonkeyPatch, text: bytes | str) -> None:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_it_answers_as_the_run_did(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    part = sumrnn.load(trained[0]).parts["test"]
    separators = (" ", ",", ", ", ";", "\t")
    lines = [
        separators[i % 5].join(map(str, digits)) for i, digits in enumerate(part.digits.tolist())
    ]
    given(monkeypatch, "\n".join(lines))
    done = call("predict", trained[0], "--json", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    found = [json.loads(line) for line in done.out.splitlines()]
    expected = scipy.special.expit(part.logits.astype(float))
    np.testing.assert_allclose([one["probability"] for one in found], expected, atol=1e-6)
    assert [one["answer"] for one in found] == (part.logits > 0).astype(int).tolist()
    assert [one["label"] for one in found] == part.labels.tolist()
    assert [one["sum"] for one in found] == part.digits.sum(axis=1, dtype=int).tolist()


def test_one_series_may_follow_the_folder(trained: Trained, tmp_path: pathlib.Path) -> None:
    part = sumrnn.load(trained[0]).parts["test"]
    done = call("predict", trained[0], *part.digits[0], cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    head, line = done.out.splitlines()
    assert head.split() == ["probability", "answer", "sum", "label"]
    probability, *counts = line.split()
    assert float(probability) == pytest.approx(scipy.special.expit(float(part.logits[0])), abs=1e-6)
    total = int(part.digits[0].sum())
    assert counts == [str(int(part.logits[0] > 0)), str(total), str(int(part.labels[0]))]


def test_other_lengths_are_answered_with_a_note(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    given(monkeypatch, "\ufeff3 3\n\n1 2 3 1 2\n0 1 2 3 0 1 2 3\n3 0\n")
    done = call("predict", trained[0], cwd=tmp_path)
    assert done.status == 0
    assert [line.split()[2] for line in done.out.splitlines()[1:]] == ["6", "9", "12", "3"]
    note = "predict.py: note: 3 series of another length; the network was trained on 5 digits\n"
    assert done.err == note


BAD = {
    "4 1 2 3 0": "row 1, column 1: '4' must be a digit from 0 to 3",
    "1 2 3 0 1\n\n1,x,3": "row 3, column 2: 'x' must be a digit from 0 to 3",
    "1 2 -1": "row 1, column 3: '-1' must be a digit",
    "12310": "row 1, column 1: '12310' must be a digit",
    "1.0 2": "row 1, column 1: '1.0' must be a digit",
    "1 " * 10_001: "row 1: must have at most 10,000 digits",
    "\n1" + " " * 100_000: "row 2: must have at most 100,000 characters",
    "\N{SUPERSCRIPT TWO}": "row 1, column 1: ",
}


def test_no_digits_are_no_series(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for words in (("",), (" ", ","), (";",)):
        assert "must be at least one digit" in refused("predict", trained[0], *words, cwd=tmp_path)
    given(monkeypatch, b"\xff\xfe\0")
    assert "row 1" in refused("predict", trained[0], "--json", cwd=tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    line = refused("predict", trained[0], cwd=tmp_path)
    assert "must be given, because standard input is closed" in line


class Endless(io.RawIOBase):
    """A line without an end, and how much of it was read."""

    size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = (b"1 " * len(buffer))[: len(buffer)]
        self.size += len(buffer)
        return len(buffer)


def test_a_line_without_an_end_is_refused_after_its_first_digits(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    line = Endless()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(line)))
    done = call("predict", trained[0], "--json", cwd=tmp_path)
    assert (done.status, "row 1: must have at most 10,000 digits" in done.err) == (2, True)
    assert line.size < 200_000


def test_few_programs_answer_all_lengths() -> None:
    model = dataclasses.replace(SMALL.model, input_center=1.5, input_scale=1.25)
    config = dataclasses.replace(SMALL, model=model)
    params: Any = jax.tree.map(
        np.array, network.to_flax(jax.jit(init, static_argnums=1)(jax.random.key(0), config))
    )
    params["output"]["kernel"] *= 10
    draw, lengths = np.random.default_rng(0), [*range(130, 0, -1), 5, 5, 10_000]
    series = [draw.integers(0, 4, length).astype(np.uint8) for length in lengths]
    answer = Predictor(params, config)
    exact = jax.tree.map(np.float64, params)
    inputs = [(digits[None].astype(float) - 1.5) / 1.25 for digits in series]
    expected = [scipy.special.expit(numpy_logits(exact, row)[0]) for row in inputs]
    programs = (answer._logits, answer._ragged)
    before = [program._cache_size() for program in programs]  # Those of other tests.
    np.testing.assert_allclose(answer(series), expected, rtol=0, atol=1e-6)
    assert np.std(expected) > 0.1
    added = [program._cache_size() - n for program, n in zip(programs, before, strict=True)]
    assert max(added) <= 1


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:9])
def test_what_is_no_digit_is_named_by_row_and_column(
    text: str, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    given(monkeypatch, text)
    assert BAD[text] in refused("predict", trained[0], "--json", cwd=tmp_path)


@pytest.mark.slow
def test_a_long_stream_takes_no_more_memory(trained: Trained, tmp_path: pathlib.Path) -> None:
    code = (
        "import resource, sys, sumrnn.cli.predict as p; sys.argv[0] = 'predict.py'\n"
        "p.main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for rows in (10_000, 400_000):
        text = "1 2 3 0 1\n" * rows
        argv = [sys.executable, "-c", code, str(trained[0]), "--json"]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.count("\n") == rows
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + 40_000, peaks
