"""Every file of a run folder damaged in every way: made good, or named in one line.

The oracle is the run that nobody damaged: whatever comes out must be its numbers.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from sumrnn import batch, checkpoint, files, recorder, report, runs, summary
from sumrnn.files import SUMS, RunError
from sumrnn.signals import Stop
from tests.conftest import SMALL, Script, files_of, history_of

SEED, EPOCHS = 7, 3
CONFIG = dataclasses.replace(SMALL, train=dataclasses.replace(SMALL.train, epochs=EPOCHS))
OTHER = dataclasses.replace(CONFIG, data_seed=1)  # Compiles to the same program.

OWN = (runs.CONFIG, runs.HISTORY, runs.PREDICTIONS, SUMS)
"""What a finished run is read from."""
REBUILT = (
    runs.REPORT_JSON,
    runs.REPORT_MD,
    *(f"{runs.FIGURES}/{name}.png" for name in report.FIGURES),
)
STATE = (
    *("_CHECKPOINT_METADATA", "_METADATA", "commit_success.txt"),
    *("manifest.ocdbt", "d/*", "ocdbt.process_0/manifest.ocdbt", "ocdbt.process_0/d/*"),
)
"""A checkpoint's files; Orbax names those of data at random."""
SAVED = tuple(
    f"{age}/{name}"
    for age in ("newest", "oldest")
    for name in (SUMS, *(f"{checkpoint.STATE}/{name}" for name in STATE))
)

Contents = dict[str, bytes]


def cut(keep: Callable[[int], int]) -> Callable[[pathlib.Path, Sequence[pathlib.Path]], None]:
    def damage(file: pathlib.Path, others: Sequence[pathlib.Path]) -> None:
        data = file.read_bytes()
        file.write_bytes(data[: keep(len(data))])

    return damage


def flip(position: Callable[[int], int]) -> Callable[[pathlib.Path, Sequence[pathlib.Path]], None]:
    def damage(file: pathlib.Path, others: Sequence[pathlib.Path]) -> None:
        data = bytearray(file.read_bytes())
        data[position(len(data))] ^= 1
        file.write_bytes(data)

    return damage


def replace(number: int) -> Callable[[pathlib.Path, Sequence[pathlib.Path]], None]:
    return lambda file, others: file.write_bytes(others[number].read_bytes()) and None


KINDS: dict[str, Callable[[pathlib.Path, Sequence[pathlib.Path]], None]] = {
    "half": cut(lambda size: size // 2),
    "all but the last byte": cut(lambda size: size - 1),
    "empty": cut(lambda size: 0),
    "first byte flipped": flip(lambda size: 0),
    "middle byte flipped": flip(lambda size: size // 2),
    "last byte flipped": flip(lambda size: size - 1),
    "deleted": lambda file, others: file.unlink(),
    "of another seed": replace(0),
    "of another config": replace(1),
}


def found(path: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The files of a run by their name here."""
    age, _, rest = name.partition("/")
    if age not in ("newest", "oldest"):
        return [path / name]
    epochs = checkpoint.epochs(path)
    place = checkpoint.folder(path, epochs[0 if age == "newest" else -1])
    files = place.glob(rest)
    return sorted(files, key=lambda file: (file.stat().st_size, file.name))


def find(path: pathlib.Path, name: str, number: int = 0) -> pathlib.Path:
    """One of them; of another run that has fewer, the last one."""
    return found(path, name)[: number + 1][-1]


def contents(path: pathlib.Path) -> Contents:
    """Every file but the lock, which any process may leave."""
    return {name: data for name, data in files_of(path).items() if not name.endswith(files.LOCK)}


@dataclasses.dataclass(frozen=True)
class Made:
    """The runs that are copied and damaged; do not change them."""

    finished: pathlib.Path
    interrupted: pathlib.Path
    """After the epoch before the last."""
    others: dict[str, tuple[pathlib.Path, pathlib.Path]]
    """Of another seed and of another config: by what they replace files of."""
    run: runs.Run
    state: dict[str, np.ndarray]
    """The last checkpoint's, by the names of its leaves."""

    def base(self, how: str) -> pathlib.Path:
        return self.interrupted if how == "interrupted" else self.finished


def record(path: pathlib.Path, config: Any, seed: int, until: int = EPOCHS, epoch: int = 0) -> None:
    stop = Stop()

    def watch(seeds: Sequence[int], epoch: int, row: recorder.Row) -> None:
        if epoch == until - 1 < EPOCHS - 1:
            stop.number = 2

    for _ in recorder.record({seed: path}, {seed: epoch}, config, "sheet", stop, watch, every=1):
        pass


def restored(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The checkpoint after the last epoch as Orbax reads it, but for the wall clock."""
    place = checkpoint.folder(path, EPOCHS) / checkpoint.STATE
    with ocp.StandardCheckpointer() as checkpointer:
        leaves = ocp.tree.to_flat_dict(checkpointer.restore(place.absolute()), sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if "seconds" not in name}


def write_report(path: pathlib.Path, real: bool) -> None:
    """A report, or what takes a second less and is as good to replace one's files by."""
    if real:
        report.write(path)
        return
    (path / runs.FIGURES).mkdir()
    for name in REBUILT:
        (path / name).write_text(f"{name} of {path.name}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("made")
    for name, config, seed in (
        ("run", CONFIG, SEED),
        ("seed", CONFIG, SEED + 1),
        ("config", OTHER, SEED),
    ):
        record(path / "finished" / name, config, seed)
        write_report(path / "finished" / name, real=name == "run")
        record(path / "interrupted" / name, config, seed, until=EPOCHS - 1)
    others = {
        how: (path / how / "seed", path / how / "config") for how in ("finished", "interrupted")
    }
    finished = path / "finished" / "run"
    return Made(
        finished,
        path / "interrupted" / "run",
        others,
        runs.load(finished),
        restored(finished),
    )


@pytest.fixture
def copy(made: Made, tmp_path: pathlib.Path) -> Iterator[Callable[[str], pathlib.Path]]:
    """A run that may be damaged."""
    path = tmp_path / "run"

    def make(how: str) -> pathlib.Path:
        shutil.rmtree(path, ignore_errors=True)
        return pathlib.Path(shutil.copytree(made.base(how), path))

    yield make
    shutil.rmtree(path, ignore_errors=True)  # Hundreds of them fill a disk.


def assert_one_line(error: RunError, path: pathlib.Path) -> None:
    message = str(error)
    assert "\n" not in message
    assert str(path) in message


def refusal(action: Callable[[], object], path: pathlib.Path) -> str | None:
    """The line with which something is refused, if it is."""
    try:
        action()
    except RunError as error:
        assert_one_line(error, path)
        return str(error)
    return None


@contextlib.contextmanager
def nothing_changes(path: pathlib.Path) -> Iterator[None]:
    before = contents(path)
    yield
    assert contents(path) == before


def assert_same_run(found: runs.Run, made: Made, but: tuple[str, ...] = ()) -> None:
    """That a report, which is built from it alone, is the same."""
    for field in ("config", "seed", "name", "versions", "device"):
        assert getattr(found, field) == getattr(made.run, field)
    for name, values in made.run.history.items():
        if name not in but:
            np.testing.assert_array_equal(found.history[name], values)
    for name, part in made.run.parts.items():
        for field, array in vars(part).items():
            np.testing.assert_array_equal(getattr(found.parts[name], field), array)


def analyze(path: pathlib.Path, made: Made) -> str | None:
    """Reads a run as a report does; returns why it is refused."""
    with nothing_changes(path):
        return refusal(lambda: assert_same_run(runs.load(path), made), path)


def resume(path: pathlib.Path, made: Made, deep: bool = True) -> str | None:
    """Continues a run as a script does, and compares it; returns why it is refused.

    Args:
      deep: compares parameters and optimiser state too, beside what follows from them.
    """
    before = contents(path)
    try:
        with nothing_changes(path):
            status, epoch, wrong = runs.survey(path, CONFIG, SEED)
        assert status in ("finished", "unfinished")
        if status == "unfinished":
            waves = recorder.record({SEED: path}, {SEED: epoch}, CONFIG, "sheet", Stop())
            assert [wave.status for wave in waves] == [{SEED: "finished"}]
    except RunError as error:
        assert_one_line(error, path)
        assert contents(path) == before
        return str(error)
    assert not any("\n" in line for line in wrong)
    assert_same_run(runs.load(path), made, but=("seconds",))
    predictions = (folder / runs.PREDICTIONS for folder in (path, made.finished))
    assert next(predictions).read_bytes() == next(predictions).read_bytes()
    assert history_of(path) == history_of(made.finished)
    if status == "unfinished":
        assert checkpoint.epochs(path)[0] == EPOCHS
    if status == "unfinished" and deep:
        np.testing.assert_equal(restored(path), made.state)
    return None


def test_the_names_here_are_all_files_of_a_run(made: Made) -> None:
    for how, names in NAMES.items():
        path = made.base(how)
        known = {file.relative_to(path) for name in names for file in found(path, name)}
        there = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
        assert known == there - {pathlib.Path(files.LOCK)}


NAMES = {
    "finished": (*OWN, *REBUILT, *SAVED),
    "interrupted": (runs.CONFIG, runs.HISTORY, *SAVED),
}
CASES = [(how, name, kind) for how, names in NAMES.items() for name in names for kind in KINDS]


@pytest.mark.parametrize(("how", "name", "kind"), CASES, ids=map("-".join, CASES))
def test_a_damaged_file_is_made_good_or_named(
    how: str, name: str, kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    for number in range(len(found(made.base(how), name))):
        path = copy(how)
        others = [find(other, name, number) for other in made.others[how]]
        KINDS[kind](find(path, name, number), others)
        refused = analyze(path, made)
        if how == "interrupted":
            assert refused
        elif refused:
            assert name in OWN
            if name != SUMS or kind == "deleted":  # Of two files that disagree, it names either.
                assert name in refused
        if how == "interrupted" and name.startswith("oldest") and kind != "half":
            # Not read, so that going on from the newest one once is enough.
            assert runs.survey(path, CONFIG, SEED) == ("unfinished", EPOCHS - 1, [])
            continue
        refused = resume(path, made, deep=kind == "half")
        if refused:  # All else can be made again.
            assert name == runs.CONFIG
            assert runs.CONFIG in refused


LOCKS: dict[str, Callable[[pathlib.Path], object]] = {
    "deleted": lambda lock: lock.unlink(),
    "filled": lambda lock: lock.write_bytes(b"\xff" * 100),
    "a folder": lambda lock: (lock.unlink(), lock.mkdir()),
}


@pytest.mark.parametrize("how", NAMES)
@pytest.mark.parametrize("kind", LOCKS)
def test_the_lock_file_holds_nothing_that_could_be_damaged(
    how: str, kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy(how)
    LOCKS[kind](path / files.LOCK)
    refused = resume(path, made)
    assert (refused is not None) == (kind == "a folder" and how == "interrupted")


Checkpoints = Callable[[pathlib.Path, Made, str], object]


def move(source: int, target: int) -> Checkpoints:
    """Renames a checkpoint; epochs count from the newest one's."""

    def damage(path: pathlib.Path, made: Made, how: str) -> None:
        newest = checkpoint.epochs(path)[0]
        files.remove(checkpoint.folder(path, newest + target))
        checkpoint.folder(path, newest + source).rename(checkpoint.folder(path, newest + target))

    return damage


def duplicate(source: int, target: int) -> Checkpoints:
    def damage(path: pathlib.Path, made: Made, how: str) -> None:
        newest = checkpoint.epochs(path)[0]
        pair = [checkpoint.folder(path, newest + age) for age in (source, target)]
        files.remove(pair[1])
        shutil.copytree(*pair)

    return damage


def swap(path: pathlib.Path, made: Made, how: str) -> None:
    newest, oldest = (checkpoint.folder(path, epoch) for epoch in checkpoint.epochs(path))
    newest.rename(path / "aside")
    oldest.rename(newest)
    (path / "aside").rename(oldest)


def take(other: int, *ages: int) -> Checkpoints:
    """Replaces checkpoints by another run's."""

    def damage(path: pathlib.Path, made: Made, how: str) -> None:
        newest = checkpoint.epochs(path)[0]
        for age in ages:
            target = checkpoint.folder(path, newest + age)
            files.remove(target)
            shutil.copytree(checkpoint.folder(made.others[how][other], newest + age), target)

    return damage


def delete(*ages: int) -> Checkpoints:
    def damage(path: pathlib.Path, made: Made, how: str) -> None:
        newest = checkpoint.epochs(path)[0]
        for age in ages:
            files.remove(checkpoint.folder(path, newest + age))

    return damage


def put(what: Callable[[pathlib.Path], object]) -> Checkpoints:
    """Puts something else in the newest one's place."""

    def damage(path: pathlib.Path, made: Made, how: str) -> None:
        target = checkpoint.folder(path, checkpoint.epochs(path)[0])
        files.remove(target)
        what(target)

    return damage


WHOLE: dict[str, Checkpoints] = {
    "newest deleted": delete(0),
    "oldest deleted": delete(-1),
    "both deleted": delete(0, -1),
    "checkpoints deleted": lambda path, made, how: files.remove(path / runs.CHECKPOINTS),
    "swapped": swap,
    "newest renamed to the next": move(0, 1),
    "newest renamed to 99": move(0, 96),
    "oldest renamed to the newest": move(-1, 0),
    "newest renamed to the oldest": move(0, -1),
    "oldest renamed to 99": move(-1, 96),
    "newest as the next too": duplicate(0, 1),
    "newest as the oldest too": duplicate(0, -1),
    "newest as another run's, seed": take(0, 0),
    "newest as another run's, config": take(1, 0),
    "oldest as another run's, seed": take(0, -1),
    "both as another run's, seed": take(0, 0, -1),
    "both as another run's, config": take(1, 0, -1),
    "newest an empty folder": put(lambda path: path.mkdir()),
    "newest a file": put(lambda path: path.write_text("7")),
    "newest a link to nowhere": put(lambda path: path.symlink_to("nowhere")),
    "newest without its state": lambda path, made, how: shutil.rmtree(
        checkpoint.folder(path, checkpoint.epochs(path)[0]) / checkpoint.STATE
    ),
}


@pytest.mark.parametrize("how", ["finished", "unproven", "interrupted"])
@pytest.mark.parametrize("kind", WHOLE)
def test_checkpoints_in_disorder_are_passed_over_or_named(
    how: str, kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy(how)
    if how == "unproven":  # Killed just before its end.
        (path / SUMS).unlink()
    WHOLE[kind](path, made, "interrupted" if how == "interrupted" else "finished")
    assert (analyze(path, made) is None) == (how == "finished")
    refused = resume(path, made)
    if refused:
        assert how != "finished"
        assert runs.CHECKPOINTS in refused


@pytest.mark.parametrize("how", ["unproven", "interrupted"])
def test_without_a_good_checkpoint_the_run_is_left_as_it_is(
    how: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy(how)
    (path / SUMS).unlink(missing_ok=True)
    for age in ("newest", "oldest"):
        KINDS["middle byte flipped"](find(path, f"{age}/state/_METADATA"), ())
    refused = resume(path, made)
    assert refused
    assert "_METADATA: damaged" in refused
    assert "no good checkpoint" in refused


def test_what_is_damaged_does_not_push_out_what_is_good(
    made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("interrupted")
    for epoch in (50, 99):
        checkpoint.folder(path, epoch).mkdir()
    assert resume(path, made) is None
    assert checkpoint.newest(path, CONFIG) == (EPOCHS, [])
    assert len(checkpoint.epochs(path)) == checkpoint.KEPT


@pytest.mark.parametrize("history", ["stale", "missing", "wrong"])
def test_a_run_killed_just_before_its_end_gets_its_own_history(
    history: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    (path / SUMS).unlink()
    file = path / runs.HISTORY
    lines = file.read_text().splitlines(keepends=True)
    if history == "stale":
        file.write_text("".join(lines[:-1]))
    elif history == "missing":
        file.unlink()
    else:
        file.write_text(re.sub(r"\n1,0\.", "\n1,1.", file.read_text()))
    assert resume(path, made) is None


def seal(path: pathlib.Path) -> None:
    """Makes all checksums of a run right again."""
    if (path / SUMS).exists():
        files.write_sums(path, files.read_sums(path))
    for epoch in checkpoint.epochs(path):
        seal_checkpoint(checkpoint.folder(path, epoch))


def seal_checkpoint(place: pathlib.Path) -> None:
    there = sorted(file for file in (place / checkpoint.STATE).rglob("*") if file.is_file())
    names = [str(file.relative_to(place)) for file in there]
    files.write_sums(place, [checkpoint.OWNER, *names])


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "state/../../x",
        "state/../SHA256SUMS",
        "../../history.csv",
        "state",
        "other/file",
    ],
)
def test_a_checkpoint_cannot_name_files_outside_of_it(
    name: str,
    made: Made,
    copy: Callable[[str], pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, digest = copy("interrupted"), files.digest
    place = checkpoint.folder(path, checkpoint.epochs(path)[0])
    (place.parent / "x").write_text("outside")
    (place / SUMS).write_text(f"{(place / SUMS).read_text()}{'0' * 64}  {name}\n")

    def watched(file: pathlib.Path) -> str:
        inside = file.resolve().is_relative_to(place.resolve())
        assert inside or file.resolve().is_relative_to(path.resolve())
        assert file.name not in ("x", "passwd", runs.HISTORY, SUMS, "file")
        return digest(file)

    monkeypatch.setattr(files, "digest", watched)
    status, epoch, wrong = runs.survey(path, CONFIG, SEED)
    assert (status, epoch) == ("unfinished", EPOCHS - 2)
    assert f"{place / SUMS}: damaged ({name!r} is no file of a checkpoint)" in wrong


@pytest.mark.parametrize("lines", range(1, 11))
def test_a_checkpoint_must_name_all_its_files(
    lines: int, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("interrupted")
    sums = find(path, f"newest/{SUMS}")
    named = sums.read_text().splitlines(keepends=True)
    assert lines < len(named)
    sums.write_text("".join(named[:lines]))
    status, epoch, wrong = runs.survey(path, CONFIG, SEED)
    assert (status, epoch) == ("unfinished", EPOCHS - 2)
    assert str(sums) in wrong[0]


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_a_finished_run_must_name_all_its_files(
    kept: tuple[int, ...], made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    lines = (path / SUMS).read_text().splitlines(keepends=True)
    (path / SUMS).write_text("".join(lines[number] for number in kept))
    refused = analyze(path, made)
    assert refused
    assert f"{path / SUMS}: damaged" in refused
    assert resume(path, made) is None


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("kind", ["half", "empty", "middle byte flipped", "deleted"])
def test_a_checkpoint_that_orbax_cannot_read_is_named(
    name: str, kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    name = f"newest/{checkpoint.STATE}/{name}"
    for number in range(len(found(made.interrupted, name))):
        path = copy("interrupted")
        KINDS[kind](find(path, name, number), ())
        seal(path)
        refused = resume(path, made)
        assert refused is None or f"{runs.CHECKPOINTS}/{EPOCHS - 1}" in refused


class Attack:
    """Unpickled, it would make a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def save_pickle(file: pathlib.Path, attack: np.ndarray) -> None:
    with np.load(file) as arrays:
        np.savez(file, **dict(arrays) | {"logits": attack})


@pytest.mark.parametrize("form", ["in an array", "for an array", "for the file"])
def test_pickled_objects_are_not_executed(
    form: str, made: Made, copy: Callable[[str], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path, trace = copy("finished"), tmp_path / "trace"
    file = path / runs.PREDICTIONS
    attack = np.array([Attack(trace)] * len(made.run.parts["test"].logits), object)
    save_pickle(file, attack)
    if form != "in an array":
        pickled = attack.dumps()
        if form == "for the file":
            file.write_bytes(pickled)
        else:
            rewrite_member(file, "logits.npy", pickled)
    seal(path)
    refused = analyze(path, made)
    assert refused
    assert f"{file}: damaged" in refused
    assert not trace.exists()


def rewrite_member(file: pathlib.Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in (members | {name: content}).items():
            archive.writestr(member, data)


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64


HEADERS = {
    "an array larger than any memory": "{'descr': '<f4', 'fortran_order': False, 'shape': (1%s,)}"
    % ("0" * 15),
    "an array larger than any number": "{'descr': '<f4', 'fortran_order': False, 'shape': (1%s,)}"
    % ("0" * 30),
    "a negative shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (-5,)}",
    "an unknown dtype": "{'descr': '<q9', 'fortran_order': False, 'shape': (40,)}",
    "no dictionary": "[[[[",
    "an array of objects": "{'descr': '|O', 'fortran_order': False, 'shape': (40,)}",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_forged_headers_in_the_predictions_are_refused(
    kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    rewrite_member(path / runs.PREDICTIONS, "logits.npy", npy(HEADERS[kind]))
    seal(path)
    refused = analyze(path, made)
    assert refused
    assert f"{path / runs.PREDICTIONS}: damaged" in refused


@pytest.mark.parametrize("part", range(8))
def test_predictions_with_a_flipped_bit_and_right_sums_are_read_or_refused(
    part: int, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    file = path / runs.PREDICTIONS
    good = file.read_bytes()
    # Names and sizes of a zip are at its end, where a flipped bit has the most to confuse.
    positions = {*range(part, len(good), 8 * 127), *range(len(good) - 900 + part, len(good), 24)}
    for position in sorted(positions):
        data = bytearray(good)
        data[position] ^= 1 << (position // 8) % 8
        file.write_bytes(data)
        files.write_sums(path, files.read_sums(path))
        refusal(lambda: runs.load(path), path)


FORGED: dict[str, Callable[[str], str]] = {
    "a long line": lambda text: text.replace("\n2,", '\n2,"' + "0" * 200_000, 1),
    "a zero byte": lambda text: text.replace("\n2,", "\n2\0,", 1),
    "an open quote": lambda text: text.replace("\n2,", '\n"2,', 1),
    "a number of many digits": lambda text: text.replace("\n2,", "\n2" + "0" * 5000 + ",", 1),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_histories_are_refused(
    kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    file = path / runs.HISTORY
    file.write_text(FORGED[kind](file.read_text()))
    seal(path)
    refused = analyze(path, made)
    assert refused
    assert f"{file}: damaged" in refused


EXPERIMENT = batch.Experiment("one", "Which?", {"a": CONFIG})
ANOTHER = batch.Experiment("one", "Which?", {"a": OTHER})


@pytest.fixture
def folder(made: Made, tmp_path: pathlib.Path) -> pathlib.Path:
    """A batch that may be damaged: a finished run and one that is interrupted."""
    path = tmp_path / "batch"
    batch.open_folder(path, EXPERIMENT, (SEED, SEED + 1))
    shutil.copytree(made.finished, batch.run_folder(path, "a", SEED))
    shutil.copytree(made.others["interrupted"][0], batch.run_folder(path, "a", SEED + 1))
    return path


@pytest.fixture(scope="module")
def collected(made: Made, tmp_path_factory: pytest.TempPathFactory) -> summary.Collected:
    """What is read from a batch that nobody damaged."""
    path = tmp_path_factory.mktemp("collected") / "batch"
    batch.open_folder(path, EXPERIMENT, (SEED, SEED + 1))
    shutil.copytree(made.finished, batch.run_folder(path, "a", SEED))
    return summary.collect(path)


def collect(path: pathlib.Path) -> summary.Collected | str:
    with nothing_changes(path):
        try:
            return summary.collect(path)
        except RunError as error:
            assert_one_line(error, path)
            return str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_declaration_of_a_batch_is_named(
    kind: str, folder: pathlib.Path, collected: summary.Collected, tmp_path: pathlib.Path
) -> None:
    others = tmp_path / "seeds", tmp_path / "configs"
    batch.open_folder(others[0], EXPERIMENT, (3,))
    batch.open_folder(others[1], ANOTHER, (SEED, SEED + 1))
    file = folder / batch.EXPERIMENT
    KINDS[kind](file, [other / batch.EXPERIMENT for other in others])
    there = collect(folder)
    if kind == "of another seed":  # A batch whose runs are still to come.
        assert not isinstance(there, str)
        assert [row["status"] for row in there.rows] == ["unfinished"]
    elif isinstance(there, str):
        assert batch.EXPERIMENT in there or runs.CONFIG in there
    else:
        assert there.rows == collected.rows
    before = contents(folder)
    refused = refusal(lambda: batch.open_folder(folder, EXPERIMENT, (SEED, SEED + 1)), folder)
    if refused:
        assert batch.EXPERIMENT in refused
        assert contents(folder) == before
    else:
        assert summary.collect(folder).rows[-2:] == collected.rows
        del before[batch.EXPERIMENT]
        assert before.items() <= contents(folder).items()


IN_A_BATCH = [(name, kind) for name in OWN for kind in KINDS]


@pytest.mark.parametrize(("name", "kind"), IN_A_BATCH, ids=map("-".join, IN_A_BATCH))
def test_a_batch_refuses_a_finished_run_that_is_damaged(
    name: str, kind: str, made: Made, folder: pathlib.Path, collected: summary.Collected
) -> None:
    path = batch.run_folder(folder, "a", SEED)
    KINDS[kind](path / name, [other / name for other in made.others["finished"]])
    there = collect(folder)
    if isinstance(there, str):
        assert str(path) in there
    elif name == SUMS and kind == "deleted":
        assert [row["status"] for row in there.rows] == ["unfinished"] * 2
    else:
        assert there.rows == collected.rows


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_refuses_another_runs_folder(seed: int, made: Made, folder: pathlib.Path) -> None:
    path = batch.run_folder(folder, "a", SEED)
    shutil.rmtree(path)
    shutil.copytree(made.others["finished"][seed], path)
    there = collect(folder)
    assert isinstance(there, str)
    assert f"{path / runs.CONFIG}: is another run" in there


DIVERGED = [
    (name, kind)
    for name in (runs.CONFIG, runs.HISTORY, SUMS)
    for kind in KINDS
    if "of an" not in kind
]


@pytest.mark.parametrize(("name", "kind"), DIVERGED, ids=map("-".join, DIVERGED))
def test_a_run_counts_as_diverged_only_if_it_is_whole(
    name: str, kind: str, made: Made, folder: pathlib.Path
) -> None:
    path = batch.run_folder(folder, "a", SEED + 1)
    runs.give_up(path)
    good = contents(path)[name]
    KINDS[kind](path / name, ())
    status = ""

    def look() -> None:
        nonlocal status
        status = runs.survey(path, CONFIG, SEED + 1)[0]

    with nothing_changes(path):
        refused = refusal(look, path)
    assert not refused or runs.CONFIG in refused
    assert status != "finished"
    assert status != "diverged" or (name == SUMS and intact(path, good))
    there = collect(folder)
    if isinstance(there, str):
        assert str(path) in there
    elif name == SUMS and kind == "deleted":
        assert there.rows[1]["status"] == "unfinished"
    else:
        assert name == SUMS
        assert intact(path, good)


def intact(path: pathlib.Path, good: bytes) -> bool:
    """Whether SHA256SUMS still says the same, with other space at its end."""
    return (path / SUMS).read_text().splitlines() == good.decode().splitlines()


@pytest.mark.parametrize("other", [0, 1])
def test_a_batch_refuses_another_run_that_diverged(
    other: int, made: Made, folder: pathlib.Path
) -> None:
    path = batch.run_folder(folder, "a", SEED)
    shutil.rmtree(path)
    shutil.copytree(made.others["interrupted"][other], path)
    runs.give_up(path)
    there = collect(folder)
    assert isinstance(there, str)
    assert str(path) in there


def test_a_finished_run_does_not_become_a_diverged_one(made: Made, folder: pathlib.Path) -> None:
    path = batch.run_folder(folder, "a", SEED)
    files.write_sums(path, (runs.CONFIG, runs.HISTORY))
    there = collect(folder)
    assert isinstance(there, str)
    assert f"{path / SUMS}: damaged" in there


def test_the_report_of_a_resumed_run_is_that_of_the_undamaged_one(
    made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("interrupted")
    KINDS["half"](find(path, f"newest/{checkpoint.STATE}/_METADATA"), ())
    assert resume(path, made) is None
    report.write(path)
    found, expected = (
        json.loads((folder / runs.REPORT_JSON).read_text()) for folder in (path, made.finished)
    )
    assert found["run"].pop("seconds") > 0
    assert expected["run"].pop("seconds") > 0
    assert found == expected


def test_analyze_writes_nothing_of_a_damaged_run(
    made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    KINDS["half"](path / runs.PREDICTIONS, ())
    with nothing_changes(path), pytest.raises(RunError, match=r"predictions\.npz: damaged"):
        report.write(path)


AS_PROCESSES = [
    ("analyze", runs.PREDICTIONS, "middle byte flipped"),
    ("analyze", SUMS, "last byte of a name flipped"),
    ("train", runs.CONFIG, "half"),
]


@pytest.mark.parametrize(("program", "name", "kind"), AS_PROCESSES, ids=map("-".join, AS_PROCESSES))
def test_a_script_says_what_is_damaged_in_one_line(
    program: str,
    name: str,
    kind: str,
    script: Script,
    copy: Callable[[str], pathlib.Path],
) -> None:
    path = copy("finished")
    damage = KINDS.get(kind, flip(lambda size: size - 2))
    damage(path / name, ())
    arguments = ("--resume", "--out", path) if program == "train" else (path,)
    with nothing_changes(path):
        done = script(program, *arguments, cwd=path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"{program}\.py: error: [^\n]*{re.escape(name)}[^\n]*\n", done.stderr)


@pytest.mark.slow
def test_a_script_makes_good_what_is_damaged_and_says_so(
    script: Script, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy("finished")
    KINDS["half"](path / runs.HISTORY, ())
    newest = find(path, f"newest/{checkpoint.STATE}/_METADATA")
    KINDS["half"](newest, ())
    done = script("train", "--resume", "--out", path, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "".join(
        f"train.py: warning: {file}: damaged (it does not match {SUMS}); "
        f"continuing after epoch {EPOCHS - 1}\n"
        for file in (path / runs.HISTORY, newest)
    )
    assert contents(path)[runs.PREDICTIONS] == contents(made.finished)[runs.PREDICTIONS]
    assert history_of(path) == history_of(made.finished)
