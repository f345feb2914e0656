"""What `import sumrnn` gives, as its help and a type checker see it."""

import pathlib
import pydoc
import re
import subprocess
import sys
import textwrap

import sumrnn
from tests.conftest import ROOT

PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
WRONG = (
    'sumrnn.fit(sumrnn.Config(), "twelve")',
    "sumrnn.fit(sumrnn.Config(), 1.5)",
    'sumrnn.fit("sheet", 12)',
    'sumrnn.fit_many(sumrnn.Config(), "twelve")',
    'sumrnn.evaluate(sumrnn.Config(), "run.keras")',
    "sumrnn.load(12)",
)
FASTER = """
[[tool.mypy.overrides]]
module = ["jax.*", "flax.*"]
follow_imports = "skip"

[[tool.mypy.overrides]]
module = ["jax", "jax._src.basearray"]
follow_imports = "normal"

[[tool.mypy.overrides]]
module = ["sumrnn.*"]
ignore_errors = true
"""
"""Leaves out what takes mypy a quarter of a minute: all of JAX but its array."""


def refused(text: str, folder: pathlib.Path) -> list[int]:
    """The numbers of the lines that mypy refuses, with the package's own settings."""
    settings, file = folder / "mypy.toml", folder / "text.py"
    settings.write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + FASTER)
    file.write_text(text, encoding="utf-8")
    options = ("--config-file", settings, "--cache-dir", folder / "cache", file)
    argv = [sys.executable, "-m", "mypy", *map(str, options)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(("Success: ", f"{file}:")), done
    told = re.findall(r"^.*/text\.py:(\d+): error", done.stdout, re.MULTILINE)
    return sorted({int(line) for line in told})


def test_the_lines_of_the_readme_are_right_and_others_are_not(tmp_path: pathlib.Path) -> None:
    readme = "\n".join(PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert "sumrnn.evaluate(sumrnn.Config(), run.state.params)" in readme
    (example,) = re.findall(r"^    .*^    \S[^\n]*", sumrnn.__doc__ or "", re.DOTALL | re.MULTILINE)
    right = readme + textwrap.dedent(example)
    first = len(right.splitlines()) + 1
    assert refused("\n".join((right, *WRONG)), tmp_path) == [*range(first, first + len(WRONG))]


def test_help_shows_everything_that_is_public() -> None:
    assert dir(sumrnn) == sorted(sumrnn.__all__)
    assert {*sumrnn._LATE} < {*sumrnn.__all__}
    shown = pydoc.plain(pydoc.render_doc(sumrnn))
    assert "PRESETS = " in shown
    for name in {*sumrnn.__all__} - {"PRESETS", "__version__"}:
        first, *_ = pydoc.getdoc(getattr(sumrnn, name)).splitlines()
        assert first in shown, name
