"""Command lines as every command reads them."""

import pathlib

import pytest

from sumrnn.cli import command
from sumrnn.cli.main import COMMANDS
from sumrnn.errors import UserError
from tests.conftest import call, load_script


@pytest.mark.parametrize("name", [*COMMANDS, "benchmark"])
def test_help_has_no_line_of_prose_over_80_columns_nor_over_those_that_there_are(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = load_script(name).__doc__.strip().split("\n\n")
    for terminal, columns in (("200", 80), ("60", 60)):
        monkeypatch.setenv("COLUMNS", terminal)
        shown = call(name, "--help", cwd=tmp_path).out
        assert all(len(line) <= int(terminal) for line in shown.splitlines()[1:])
        _, *paragraphs = shown.split("\n\n")[: len(written) + 1]
        assert [text.split() for text in paragraphs] == [text.split() for text in written]
        assert all(len(line) <= columns for text in paragraphs for line in text.splitlines())


def test_a_home_is_a_users_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in {"~/run": "/home/me/run", "~": "/home/me", "./~": "~", "a~": "a~"}.items():
        assert command.folder("out", text) == pathlib.Path(path)
    with pytest.raises(
        UserError, match=r"^out = '~nobody-here/run': must be in the home of a known"
    ):
        command.folder("out", "~nobody-here/run")


def test_a_working_folder_that_was_deleted_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert command.folder("out", str(tmp_path)) == tmp_path
    told = "out = 'runs/sheet-seed0': must be an absolute path: the working folder was deleted"
    with pytest.raises(UserError, match=f"^{told}$"):
        load_script("train").main([])
