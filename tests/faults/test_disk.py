"""Disks that are full, read-only or odd, and links.

Whatever happens ends in one line, and nothing half-written is taken for whole.
"""

import errno
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

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
TRAIN = (
    *(ROOT / "scripts" / "train.py", "--seed", SEED, *SMALL_OPTIONS),
    *("--checkpoint-every", 1, "--out"),
)
ANALYZE = (ROOT / "scripts" / "analyze.py",)
BATCH = ("-c", EXPERIMENT, 2, "--seeds", "7:8", "--devices", 2, "--checkpoint-every", 1, "--out")
Run = Callable[..., Done]


def write_report(folder: RunFolder) -> None:
    """Without figures, which take a second."""
    texts = {REPORT_JSON: files.to_json(report.build(folder.load())), REPORT_MD: "report"}
    folder.write_report(texts, ())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that nothing disturbed, with its report.  Do not change it."""
    folder = train(tmp_path_factory.mktemp("whole") / "run")
    write_report(folder)
    return folder.path


def run(*command: object, cwd: pathlib.Path, prefix: tuple[str, ...] = (), **env: str) -> Done:
    """Runs Python to its end."""
    return subprocess.run(
        [*prefix, sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


INSIDE = """
mount -t tmpfs -o size="$SIZE" none "$DISK" || exit 99
if [ -n "$CONTENT" ]; then cp -a "$CONTENT" "$DISK/run"; fi
if [ "$BALLAST" -gt 0 ]; then head -c "$BALLAST" /dev/zero > "$DISK/ballast"; fi
if [ -n "$READONLY" ]; then mount -o remount,ro "$DISK"; fi
"$@"
status=$?
rm -f "$DISK/ballast"
if [ -z "$READONLY" ]; then cp -a "$DISK/." "$AFTER"; fi
exit $status
"""
"""Runs a command that sees a small disk of its own at $DISK, and copies its content to $AFTER."""


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Run:
    """Runs Python that has a small disk at DISK, whose content is in after/ afterwards."""
    place, after = tmp_path / "disk", tmp_path / "after"
    place.mkdir()
    after.mkdir()
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")

    def on_disk(*command: object, size: str, ballast: int = 0, content: object = "") -> Done:
        env = {"SIZE": size, "BALLAST": str(ballast), "CONTENT": str(content)}
        env |= {"DISK": str(place), "AFTER": str(after), "READONLY": "yes" if content else ""}
        inside = ("unshare", "--map-root-user", "--mount", "sh", "-c", INSIDE, "sh")
        done = run(*command, cwd=tmp_path, prefix=inside, **env)
        if done.returncode == 99 or done.stderr.startswith("unshare:"):
            pytest.skip("needs the right to mount a disk in a namespace")
        return done

    return on_disk


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
    disk: Run, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A real one; the next test but one has a disk that is full at any moment."""
    done = disk(*TRAIN, tmp_path / "disk" / "run", size="32k")
    assert_one_line(done, 1, "No space left on device: '[^']*/checkpoints/2.npz'")
    assert_goes_on(tmp_path / "after" / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "name"),
    [("80k", "runs/b-seed7/.*"), ("208k", "figures/.*")],
    ids=["at a run", "at its end"],
)
def test_a_batch_on_a_full_disk_continues_elsewhere(
    size: str, name: str, disk: Run, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = disk(*BATCH, tmp_path / "disk" / "run", size=size)
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


PROBE = """
import pathlib, sys
from sumrnn.errors import UserError
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.writer import RunWriter
from sumrnn.study.folder import ExperimentFolder
from tests.conftest import SMALL, small_experiment

def lock(path):
    with RunFolder(path).lock():
        pass

ACTIONS = {
    "look": lambda path: RunFolder(path).is_run(),
    "check": lambda path: RunFolder(path).check_free(overwrite=True),
    "survey": lambda path: RunFolder(path).survey(SMALL, 7),
    "status": lambda path: RunFolder(path).status(),
    "load": lambda path: RunFolder(path).load(),
    "lock": lock,
    "begin": lambda path: RunWriter(RunFolder(path)).begin(SMALL, 7, "sheet"),
    "report": lambda path: RunFolder(path).write_report({"report.md": "new"}, ()),
    "batch": lambda path: ExperimentFolder(path).open(small_experiment(2), (7,)),
    "is batch": lambda path: ExperimentFolder(path).is_experiment(),
}
for action, path in (word.split(":") for word in sys.argv[1:]):
    try:
        ACTIONS[action](pathlib.Path(path))
    except UserError as error:
        print(f"{action} {error.status} {error}")
    else:
        print(f"{action} was done")
"""
"""Does things to folders, and says in a line each how they were refused."""


def assert_refused(done: Done, actions: list[str], words: str) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for action, line in zip(actions, lines, strict=True):
        name, _, path = action.partition(":")
        assert re.fullmatch(rf"{name} 2 .*{re.escape(path)}.*{words}.*", line), line


@pytest.mark.slow
def test_a_read_only_disk_is_told(disk: Run, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    new, old = tmp_path / "disk" / "new", tmp_path / "disk" / "run"
    actions = [f"{name}:{new}" for name in ("lock", "begin", "batch")]
    actions += [f"{name}:{old}" for name in ("lock", "begin", "report")]
    done = disk("-c", PROBE, *actions, size="4m", content=whole)
    words = r"must be a folder that can be written \(Read-only file system\)"
    assert_refused(done, actions, words)


def no_rights(name: str = "setpriv") -> tuple[str, ...]:
    """What makes root a person whom modes keep out."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which(name):
        pytest.skip(f"needs {name}, as root")
    return (name, "--bounding-set", "-dac_override,-dac_read_search")


@pytest.fixture
def locked(whole: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Callable[[int], pathlib.Path]]:
    """A run folder with a mode."""
    path = pathlib.Path(shutil.copytree(whole, tmp_path / "locked"))

    def lock(mode: int) -> pathlib.Path:
        path.chmod(mode)
        return path

    yield lock
    path.chmod(0o700)
    assert files_of(path) == files_of(whole)


@pytest.mark.parametrize(
    ("mode", "actions"),
    [
        (0o500, ["lock:new", "begin:new", "batch:new", "begin:", "report:"]),
        (0o000, ["look:", "check:", "survey:", "status:", "load:", "lock:", "is batch:"]),
    ],
    ids=["that may not be written", "that may not be looked at"],
)
def test_a_folder_without_permission_is_told(
    mode: int, actions: list[str], locked: Callable[[int], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path = locked(mode)
    where = [name.replace(":", f":{path}/").rstrip("/") for name in actions]
    done = run("-c", PROBE, *where, cwd=tmp_path, prefix=no_rights())
    if done.stderr.startswith("setpriv:"):
        pytest.skip("needs the right to give rights up")
    assert_refused(done, where, "Permission denied")


SCRIPTS = [
    (*ANALYZE, "run"),
    (*TRAIN, "new"),
    (*TRAIN, "run", "--overwrite"),
    (TRAIN[0], "--resume", "--out", "run"),
    (*BATCH, "new"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", SCRIPTS, ids=["analyze", "train", "overwrite", "resume", "batch"]
)
def test_a_script_on_a_read_only_disk_says_so(
    command: tuple[object, ...], disk: Run, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = [tmp_path / "disk" / word if word in ("run", "new") else word for word in command]
    done = disk(*words, size="4m", content=whole)
    assert_one_line(done, 2, "must be a folder that can be written .Read-only file system.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "command"),
    [
        (0o500, (*TRAIN, "locked/new")),
        (0o000, (TRAIN[0], "--resume", "--out", "locked")),
        (0o000, (*ANALYZE, "locked")),
        (0o500, (*ANALYZE, "locked")),
        (0o500, (*BATCH, "locked/new")),
    ],
)
def test_a_script_without_permission_says_so(
    mode: int,
    command: tuple[object, ...],
    locked: Callable[[int], pathlib.Path],
    tmp_path: pathlib.Path,
) -> None:
    locked(mode)
    done = run(*command, cwd=tmp_path, prefix=no_rights())
    assert_one_line(done, 2, "Permission denied")


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
        folder.write_report({REPORT_JSON: "{}", REPORT_MD: "report"}, ())
        assert folder.load().record.status == "finished"
    assert files_of(outside) == before


def test_continuing_a_batch_does_not_write_through_links(tmp_path: pathlib.Path) -> None:
    path, outside = ExperimentFolder(tmp_path / "batch"), ExperimentFolder(tmp_path / "outside")
    outside.open(small_experiment(2), (1,))
    path.path.mkdir()
    (path.path / study_folder.EXPERIMENT).symlink_to(outside.path / study_folder.EXPERIMENT)
    before = files_of(outside.path)
    path.open(small_experiment(2), (2,))
    assert files_of(outside.path) == before
    assert path.read().seeds == (1, 2)
