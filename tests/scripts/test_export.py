"""scripts/export.py, and train.py --init-from what it wrote."""

import pathlib
from typing import Any

import chex
import numpy as np
import pytest

import sumrnn
from sumrnn.devices.compiler import fit
from sumrnn.exchange import formats
from sumrnn.runs.folder import RunFolder
from tests.conftest import SMALL_OPTIONS, Done, call, files_of, refused

Trained = tuple[pathlib.Path, Done]


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_file_is_named_as_the_run(name: str, trained: Trained, tmp_path: pathlib.Path) -> None:
    before = files_of(trained[0])
    done = call("export", trained[0], "--to", name, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    (file,) = tmp_path.iterdir()
    assert file.name == f"sheet-seed7{formats.FORMATS[name].ending}"
    assert done.out == f"{file.name}  {file.stat().st_size:,} bytes\n"
    assert files_of(trained[0]) == before


def test_nothing_is_overwritten_unasked(trained: Trained, tmp_path: pathlib.Path) -> None:
    words = ("export", trained[0], "--to", "torch", "--out", "my.safetensors")
    (tmp_path / "my.safetensors").write_text("mine")
    assert "must be new, or a file to --overwrite" in refused(*words, cwd=tmp_path)
    assert call(*words, "--overwrite", cwd=tmp_path).status == 0
    assert (tmp_path / "my.safetensors").stat().st_size > 1_000


def test_misuse_is_one_line(trained: Trained, tmp_path: pathlib.Path) -> None:
    other = ("export", trained[0], "--to", "keras", "--out", "it.h5")
    assert "out = 'it.h5': must be a file that ends in .keras" in refused(*other, cwd=tmp_path)
    assert "'pickle'" in refused("export", trained[0], "--to", "pickle", cwd=tmp_path)
    no_folder = ("export", trained[0], "--to", "keras", "--out", "no/it.keras")
    there = "out = 'no/it.keras': must be in a folder that is there"
    assert there in refused(*no_folder, cwd=tmp_path)


@pytest.mark.slow
def test_training_starts_from_a_file_and_says_so(trained: Trained, tmp_path: pathlib.Path) -> None:
    call("export", trained[0], "--to", "torch", "--out", "start.safetensors", cwd=tmp_path)
    start = ("--init-from", "start.safetensors")
    words = ("train", *SMALL_OPTIONS, "--seed", 3, *start, "--out", "run")
    done = call(*words, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    record, params = RunFolder(tmp_path / "run").network()
    assert (
        record.config.model.weights
        == formats.read("init_from", tmp_path / "start.safetensors", record.config.model)[1]
    )
    first: Any = RunFolder(trained[0]).network()[1]
    pure = fit(record.config, 3, first)
    chex.assert_trees_all_equal(params, pure.state.params)
    found = sumrnn.load(tmp_path / "run").parts["test"].logits
    np.testing.assert_array_equal(found, pure.logits[2])
    assert "another run" in refused(
        *("train", "--resume", "--out", "run", "--weights", "0" * 64), cwd=tmp_path
    )
    assert call("train", "--resume", "--out", "run", cwd=tmp_path).status == 0
    assert "weights = " in refused(*words[:-1], "b", "--weights", "0" * 64, cwd=tmp_path)


def test_digests_without_weights_are_refused(tmp_path: pathlib.Path) -> None:
    words = ("train", *SMALL_OPTIONS, "--weights", "0" * 64, "--out", "run")
    assert "must be given (--init-from)" in refused(*words, cwd=tmp_path)
