"""What a live line on a terminal leaves alone: output that goes to a file."""

import pathlib
import sys

from tests.faults.test_strangers import in_terminal

RUN = '"$0" -c "$1" '
COUNTED = """
from sumrnn.cli import progress
with progress.counted("series", shown=True) as show:
    print("an answer")
    show(1)
"""
LIVE = """
import sys
from sumrnn.cli import progress
with progress.live() as show:
    show(["at work"], 1, 2)
    print("a warning", file=sys.stderr)
"""


def test_output_that_goes_to_a_file_gets_there(tmp_path: pathlib.Path) -> None:
    for program, where, shown, kept in (
        (COUNTED, "> file", "1 series", "an answer\n"),
        (LIVE, "2> file", "at work", "a warning\n"),
    ):
        said = in_terminal(80, "sh", "-c", RUN + where, sys.executable, program, cwd=tmp_path)
        assert shown in said
        assert (tmp_path / "file").read_text() == kept
