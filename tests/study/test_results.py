"""Committed results are of the code that stands beside them."""

import json
import pathlib
from typing import Any

import jax
import pytest

from sumrnn.cli import declaration
from sumrnn.presets import preset
from sumrnn.runs import origin
from sumrnn.study import table
from tests.conftest import ROOT

SUMMARIES = sorted(ROOT.glob("experiments/*/summary.json"))


@pytest.mark.slow
@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_a_summary_is_of_this_code_or_named_as_earlier(path: pathlib.Path) -> None:
    """A digest of what is computed, which depends on the version of JAX too."""
    summary: Any = json.loads(path.read_text())
    made = summary["versions"]
    if made["jax"] != jax.__version__:
        pytest.skip(f"made with jax {made['jax']}")
    experiment = declaration.find(path.parent.name)
    assert list(summary["conditions"]) == list(experiment.conditions)
    configs = experiment.conditions.values()
    code = table.joint_code(origin.program_digest(config.canonical) for config in configs)
    named = f"`{experiment.name}` is of an earlier version, code {made['code']}"
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert (code == made["code"]) != (named in readme)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sheet", "notebook"])
def test_the_reports_that_the_readme_quotes_are_of_this_code(name: str) -> None:
    folder = ROOT / "experiments" / "reproduce" / f"{name}-seed12"
    run: Any = json.loads((folder / "report.json").read_text())["run"]
    if run["versions"]["jax"] != jax.__version__:
        pytest.skip(f"made with jax {run['versions']['jax']}")
    assert run["versions"]["code"] == origin.program_digest(preset(name).canonical)
