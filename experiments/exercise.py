"""Does the exercise hold beyond one lucky seed?  Both presets, seeds 12 to 15.

    python experiments/exercise.py

Runs what is not yet in runs/, each as `scripts/train.py` would, then writes the table
experiments/exercise/runs.csv, its summary.md, and the reports of both runs with seed 12.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

from sumrnn import runs
from sumrnn.config import PRESETS

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).with_suffix("")
SEEDS = range(12, 16)
SHOWN = 12
"""The seed whose whole report is kept."""
SCORES = (
    "accuracy",
    "majority_accuracy",
    "skill",
    "balanced_accuracy",
    "matthews_correlation",
    "average_precision_minority",
)


def measure(preset: str, seed: int) -> dict[str, object]:
    """One row of the table; trains first if there is no report yet."""
    folder = pathlib.Path("runs") / f"{preset}-seed{seed}"
    if not (ROOT / folder / runs.REPORT_JSON).exists():
        command = [sys.executable, "scripts/train.py", "--preset", preset, "--seed", str(seed)]
        subprocess.run(command, cwd=ROOT, check=True)
    else:
        # The figures and words of this version, from the numbers of the run.
        command = [sys.executable, "scripts/analyze.py", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if seed == SHOWN:
        kept = RESULTS / folder.name
        shutil.copytree(ROOT / folder / runs.FIGURES, kept / runs.FIGURES, dirs_exist_ok=True)
        for name in (runs.REPORT_JSON, runs.REPORT_MD):
            shutil.copy(ROOT / folder / name, kept / name)
    test = json.loads((ROOT / folder / runs.REPORT_JSON).read_text())["test"]
    scores = {name: f"{test[name]:.6f}" for name in SCORES}
    return {"preset": preset, "seed": seed, **scores, **test["confusion"]}


def summarize(rows: list[dict[str, object]]) -> str:
    """Mean and range of each score over the seeds, as a Markdown table."""
    lines = ["| score | " + " | ".join(PRESETS) + " |", "| --- | ---: | ---: |"]
    for name in SCORES:
        cells = []
        for preset in PRESETS:
            values = [float(str(row[name])) for row in rows if row["preset"] == preset]
            mean = statistics.fmean(values)
            cells.append(f"{mean:.4f} ({min(values):.4f} to {max(values):.4f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    title = f"Mean (range) over seeds {SEEDS[0]} to {SEEDS[-1]}, test series; made by"
    return "\n".join([f"{title} `python experiments/exercise.py`.", "", *lines, ""])


def main() -> None:
    """Measures every run and writes the results."""
    RESULTS.mkdir(exist_ok=True)
    rows = [measure(preset, seed) for preset in PRESETS for seed in SEEDS]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    runs.write_atomic(RESULTS / "runs.csv", table.getvalue())
    runs.write_atomic(RESULTS / "summary.md", summarize(rows))
    print(table.getvalue() + "\n" + summarize(rows))


if __name__ == "__main__":
    main()
