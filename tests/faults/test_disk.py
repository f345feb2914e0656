"""Disks that are full, read-only or in layers, and links.

Whatever happens ends in one line, and nothing half-written is taken for whole.
"""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from sumrnn.errors import UserError
from sumrnn.report import run as report
from sumrnn.runs import files
from sumrnn.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    FIGURES,
    HISTORY,
    PREDICTIONS,
    REPORT_JSON,
    REPORT_MD,
    REST,
    RunFolder,
)
from sumrnn.runs.writer import RunWriter
from sumrnn.study import folder as study_folder
from sumrnn.study import table
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import (
    EXPERIMENT,
    ROOT,
    SECONDS,
    SMALL,
    SMALL_OPTIONS,
    THREE,
    TRAIN,
    Done,
    before_changes,
    files_of,
    finish,
    results_of,
    small_experiment,
    train,
    train_experiment,
)

SEED = 7
TWO_RUNS = (EXPERIMENT, 2, "--seeds", "7:8", "--devices", 2, "--checkpoint-every", 1, "--out")


def write_report(folder: RunFolder) -> None:
    """Without figures, which take a second."""
    texts = {REPORT_JSON: files.to_json(report.build(folder.load())), REPORT_MD: "report"}
    files.write_report(folder.path, texts, (), ())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that nothing disturbed, with its report.  Do not change it."""
    folder = train(tmp_path_factory.mktemp("whole") / "run")
    write_report(folder)
    return folder.path


def in_namespace(script: str, *command: object, cwd: pathlib.Path, **environment: object) -> Done:
    """Runs a script of the shell, for which a command are $@, where it may mount file systems."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *map(str, command)],
        cwd=cwd,
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip("needs the right to mount in a namespace")
    return done


SMALL_DISK = """
mount -t tmpfs -o size="$SIZE" none disk || exit 99
"$@"
status=$?
cp -a disk/. after
exit $status
"""


def on_small_disk(size: str, *command: object, cwd: pathlib.Path) -> Done:
    """Runs Python that has a small disk at disk/, whose content is in after/ afterwards."""
    for name in ("disk", "after"):
        (cwd / name).mkdir()
    return in_namespace(SMALL_DISK, sys.executable, *command, cwd=cwd, SIZE=size, PYTHONPATH=ROOT)


def assert_one_line(done: Done, status: int, words: str = "") -> None:
    assert done.returncode == status, done.stderr
    assert re.fullmatch(rf"\w+\.py: error: [^\n]*{words}[^\n]*\n", done.stderr), done.stderr


def assert_goes_on(path: pathlib.Path, whole: pathlib.Path) -> None:
    """That nothing is found wrong in a run, and that it ends like one that nothing disturbed."""
    assert RunFolder(path).survey(SMALL, SEED).wrong == []
    assert not (path / REPORT_JSON).exists() or RunFolder(path).status() == "finished"
    finish(path)
    shutil.copy(whole / REPORT_JSON, path)  # It is rebuilt at any time.
    assert results_of(path) == results_of(whole)


def test_a_full_disk_is_told_and_the_run_continues_elsewhere(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A real one; the next test but one has a disk that is full at any moment."""
    options = ("--seed", SEED, *SMALL_OPTIONS, "--checkpoint-every", 1, "--out", "disk/run")
    done = on_small_disk("32k", *TRAIN[1:], *options, cwd=tmp_path)
    assert_one_line(done, 1, "No space left on device: '[^']*/checkpoints/2.npz'")
    assert_goes_on(tmp_path / "after" / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "name"),
    [("64k", "runs/b-seed7/.*"), ("208k", "figures/.*")],
    ids=["at a run", "at its end"],
)
def test_an_experiment_on_a_full_disk_continues_elsewhere(
    size: str, name: str, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = on_small_disk(size, "-c", *TWO_RUNS, "disk/run", cwd=tmp_path)
    assert_one_line(done, 1, f"No space left on device: '[^']*/{name}'")
    found, experiment = ExperimentFolder(tmp_path / "after" / "run"), small_experiment(2)
    for condition, config in experiment.conditions.items():
        assert found.run(condition, SEED).survey(config, SEED).wrong == []
    train_experiment(found.path, experiment, (SEED,))
    assert [row["status"] for row in table.collect(found).rows] == ["finished"] * 2
    again = found.run("a", SEED).path / PREDICTIONS
    assert again.read_bytes() == (whole / PREDICTIONS).read_bytes()


def test_no_room_for_any_one_of_all_changes_is_told_and_the_run_continues(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As a disk that is full at that moment, and has room again later."""
    path, told = tmp_path / "run", []
    for number in range(100):
        left = number

        def fail(event: str, changed: pathlib.Path) -> None:
            nonlocal left
            needs = event in ("open", "os.rename") or (event == "os.mkdir" and not changed.exists())
            needs &= changed.name != files.LOCK  # What it says does not matter.
            left -= needs
            if needs and left == -1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        try:
            with before_changes(path, fail):
                train(path)
        except OSError as error:
            told.append(error)
        if left >= 0:  # There are no more changes.
            break
        if path.exists():
            assert_goes_on(path, whole)
            files.remove(path)
    assert number == len(told) > 15
    assert all(error.errno == errno.ENOSPC for error in told)
    assert all("\n" not in str(error) for error in told)


def test_a_full_disk_keeps_the_run_that_is_to_be_replaced(
    whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(pathlib.Path(shutil.copytree(whole, tmp_path / "run")))

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        RunWriter(folder).begin(SMALL, 8, "sheet")
    assert files_of(folder.path) == files_of(whole)


LIMITS = {"config.json": 512, "1.npz": 4_096, "report.html": 30_000}
"""By what is larger: bytes."""


@pytest.mark.parametrize(
    "name", ["config.json", "1.npz", pytest.param("report.html", marks=pytest.mark.slow)]
)
def test_a_limit_on_the_size_of_files_is_told_and_the_run_continues_without(
    name: str, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITS[name], limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '.*/{name}'"):
            report.write(train(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_goes_on(path, whole)


CALLS = """
import json, pathlib, sys
from sumrnn.cli import declaration
from tests import conftest
declaration.find = lambda name: conftest.small_experiment(int(name))
for name, *words in json.loads(sys.argv[1]):
    called = conftest.call(name, *words, cwd=pathlib.Path.cwd())
    print(json.dumps([called.status, called.out, called.err]))
"""
"""Calls commands one after the other, and prints what came of each."""
OPTIONS = ("--seed", SEED, *SMALL_OPTIONS, "--out")
WRITING: list[tuple[object, ...]] = [
    ("train", *OPTIONS, "place/new"),
    ("train", *OPTIONS, "place/run", "--overwrite"),
    ("train", "--resume", "--out", "place/half"),
    ("experiment", 2, "--seeds", "7:8", "--out", "place/new"),
]
ANALYZE = [("analyze", "place/run")]
READING: list[tuple[object, ...]] = [
    ("train", *OPTIONS, "place/run", "--overwrite"),
    ("train", "--resume", "--out", "place/half"),
    ("experiment", 2, "--seeds", "7:8", "--out", "place/run"),
    *ANALYZE,
]
READ_ONLY = """
mount -t tmpfs none place || exit 99
cp -a runs/. place
mount -o remount,ro place
exec "$@"
"""
# What makes root a person whom modes keep out.
RIGHTS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
NO_RIGHTS = f"""
cp -a runs/. place
chmod "$MODE" place place/*
{" ".join(RIGHTS) if os.geteuid() == 0 else ""} "$@"
status=$?
chmod -R u+rwX place
diff -r -x .lock runs place && exit $status
"""


@pytest.mark.parametrize(
    ("script", "mode", "commands", "told"),
    [
        pytest.param(READ_ONLY, "", [*WRITING, *ANALYZE], "Read-only file", marks=pytest.mark.slow),
        pytest.param(NO_RIGHTS, "500", ANALYZE, "Permission denied", marks=pytest.mark.slow),
        (NO_RIGHTS, "500", WRITING, "Permission denied"),
        (NO_RIGHTS, "000", READING, "Permission denied"),
    ],
    ids=["read-only disk", "no right to write a report", "no right to write", "no right to read"],
)
def test_what_may_not_be_done_is_told(
    script: str,
    mode: str,
    commands: list[tuple[object, ...]],
    told: str,
    whole: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "place").mkdir()
    shutil.copytree(whole, tmp_path / "runs" / "run")
    train(tmp_path / "runs" / "half", THREE, until=2)
    command = (sys.executable, "-c", CALLS, json.dumps(commands))
    done = in_namespace(script, *command, cwd=tmp_path, MODE=mode, PYTHONPATH=ROOT)
    if done.stderr.startswith("setpriv:"):
        pytest.skip("needs the right to give rights up")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for (name, *_), line in zip(commands, done.stdout.splitlines(), strict=True):
        status, out, error = json.loads(line)
        assert (status, out) == (2, ""), error
        assert re.fullmatch(rf"{name}\.py: error: [^\n]*place[^\n]*{told}[^\n]*\n", error), error


IMAGE = """
mkdir disk lower
mount -t tmpfs none disk || exit 99
mkdir disk/lower disk/upper disk/work disk/merged
cp -a whole disk/lower/run
layers="lowerdir=disk/lower,upperdir=disk/upper,workdir=disk/work"
mount -t overlay -o "userxattr,$layers" none disk/merged || exit 99
rm disk/merged/run/predictions.npz
"$@" --resume && "$@" --overwrite
"""


@pytest.mark.slow
def test_a_run_in_a_container_s_image_can_be_continued_and_replaced(
    whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(whole, tmp_path / "whole")
    done = in_namespace(IMAGE, *TRAIN, *OPTIONS, "disk/merged/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 2
    assert "continuing after epoch 2" in done.stderr


@pytest.mark.parametrize("target", ["nowhere", "link"], ids=["to nowhere", "to itself"])
def test_a_link_that_leads_nowhere_is_no_run_folder(target: str, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(target)
    for action in (
        lambda: train(link),
        lambda: ExperimentFolder(link).open(small_experiment(2), (7,)),
    ):
        with pytest.raises(UserError, match=r"link: must be a folder that can be written"):
            action()
    assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


def copies(whole: pathlib.Path, tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A run, and one outside of it to which links shall lead."""
    path, outside = (
        pathlib.Path(shutil.copytree(whole, tmp_path / name)) for name in ("run", "outside")
    )
    (outside / files.LOCK).write_text("not empty")
    (outside / FIGURES / "confusion.png").write_text("not what a report has")
    return path, outside


def test_overwriting_does_not_follow_links(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path, outside = copies(whole, tmp_path)
    for entry in (CONFIG, *REST):
        files.remove(path / entry)
        (path / entry).symlink_to(outside / entry)
    before, folder = files_of(outside), RunFolder(path)
    with folder.lock():
        folder.check_free(overwrite=True)
        RunWriter(folder).begin(SMALL, SEED, "sheet")
        write_report(finish(path))
    assert files_of(outside) == before
    assert not any(file.is_symlink() for file in path.rglob("*"))
    assert results_of(path) == results_of(whole)


@pytest.mark.parametrize("entry", [CONFIG, *REST, files.LOCK, f"{CHECKPOINTS}/2.npz"])
def test_resuming_does_not_write_through_links(
    entry: str, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path, outside = copies(whole, tmp_path)
    # Not finished, so that there is something to do.
    (path / (HISTORY if entry == PREDICTIONS else PREDICTIONS)).unlink()
    files.remove(path / entry)
    (path / entry).symlink_to(outside / entry)
    before = files_of(outside)
    if entry in (CHECKPOINTS, files.LOCK):
        with pytest.raises(UserError) as caught:
            finish(path)
        assert "\n" not in str(caught.value)
    else:
        folder = finish(path)
        files.write_report(path, {REPORT_JSON: "{}", REPORT_MD: "report"}, (), ())
        assert folder.load().record.status == "finished"
    assert files_of(outside) == before


def test_continuing_an_experiment_does_not_write_through_links(tmp_path: pathlib.Path) -> None:
    path, outside = ExperimentFolder(tmp_path / "inside"), ExperimentFolder(tmp_path / "outside")
    outside.open(small_experiment(2), (1,))
    path.path.mkdir()
    (path.path / study_folder.EXPERIMENT).symlink_to(outside.path / study_folder.EXPERIMENT)
    before = files_of(outside.path)
    path.open(small_experiment(2), (2,))
    assert files_of(outside.path) == before
    assert path.read().seeds == (1, 2)
