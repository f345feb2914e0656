"""The command `sumrnn`, as `python -m sumrnn`."""

import runpy
import sys

import pytest

from sumrnn.cli import command, console, main
from sumrnn.version import __version__
from tests.conftest import ROOT, load_script


def test_it_shows_its_commands_and_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in ([], ["--help"]):
        main.main(argv)
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in main.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["sumrnn", "--version"])
    runpy.run_module("sumrnn", run_name="__main__")
    assert capsys.readouterr().out == f"{__version__}\n"


def test_its_commands_are_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts, run = sorted((ROOT / "scripts").glob("*.py")), list[object]()
    assert {path.stem for path in scripts} == {*main.COMMANDS, "benchmark"}
    monkeypatch.setattr(command, "run", run.append)
    for path in scripts:
        runpy.run_path(str(path), run_name="__main__")
    assert run == [load_script(path.stem).main for path in scripts]


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
