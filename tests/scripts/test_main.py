"""The command `sumrnn`, as `python -m sumrnn`."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from sumrnn.cli import command, console, main
from sumrnn.runs.folder import REPORT_MD
from sumrnn.version import __version__
from tests.conftest import SECONDS, Done, files_of


def sumrnn(*words: object, cwd: pathlib.Path) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "sumrnn", *map(str, words)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.slow
def test_it_is_the_same_code_as_the_scripts(
    trained: tuple[pathlib.Path, Done], tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))
    before = files_of(path)
    (path / REPORT_MD).unlink()
    done = sumrnn("analyze", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(path) == before


def test_it_shows_its_commands_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        main.main(argv)
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in main.COMMANDS)
    main.main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


def test_its_commands_are_the_scripts() -> None:
    scripts = {path.stem for path in (pathlib.Path(__file__).parents[2] / "scripts").glob("*.py")}
    assert {*main.COMMANDS, "benchmark"} == scripts


@pytest.mark.parametrize("words", [("fly",), ("train", "--seed", "-1")])
def test_misuse_is_one_line(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/sumrnn", *words])
    with pytest.raises(SystemExit) as stop:
        command.run(main.main)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sumrnn: error: " if words[0] == "fly" else "sumrnn train: error: seed")


def test_it_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for called, typed in {
        "/a/bin/sumrnn train": "sumrnn train --out 'a b'",
        "scripts/train.py": "python scripts/train.py --out 'a b'",
    }.items():
        monkeypatch.setattr(sys, "argv", [called])
        assert console.command_line("--out", "a b") == typed
