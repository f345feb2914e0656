"""Every file of a run folder damaged in every way: made good, or named in one line.

The oracle is the run that nobody damaged: whatever comes out must be its numbers.  What a look at
the folder says is asked of every damage; of each kind of answer, one is then trained to its end.
"""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sumrnn.errors import UserError
from sumrnn.runs import files
from sumrnn.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    FIGURES,
    HISTORY,
    PREDICTIONS,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
    RunFolder,
)
from sumrnn.runs.record import FORMAT
from sumrnn.runs.writer import RunWriter
from sumrnn.study import table
from sumrnn.study.experiment import Experiment
from sumrnn.study.folder import EXPERIMENT, ExperimentFolder
from tests.conftest import THREE, files_of, finish, flip, results_of, train

SEED = 7
OTHER = dataclasses.replace(THREE, data_seed=1)  # Compiles to the same program.

OWN = (CONFIG, HISTORY, PREDICTIONS)
"""What a finished run is read from."""
REBUILT = (
    REPORT_JSON,
    REPORT_MD,
    REPORT_HTML,
    f"{FIGURES}/confusion.png",
)
FINISHED = ("3.npz", "2.npz")
INTERRUPTED = ("2.npz", "1.npz")
NAMES = {
    "finished": (*OWN, *REBUILT, *(f"{CHECKPOINTS}/{name}" for name in FINISHED)),
    "interrupted": (CONFIG, HISTORY, *(f"{CHECKPOINTS}/{name}" for name in INTERRUPTED)),
    "diverged": (CONFIG, HISTORY),
}
WHOLE = {"finished": ("finished", 3), "interrupted": ("unfinished", 2), "diverged": ("diverged", 3)}
"""What a look says of a run that nobody damaged."""

Damage = Callable[[pathlib.Path, list[pathlib.Path]], object]


def cut(keep: Callable[[int], int]) -> Damage:
    def damage(file: pathlib.Path, others: list[pathlib.Path]) -> None:
        data = file.read_bytes()
        file.write_bytes(data[: keep(len(data))])

    return damage


KINDS: dict[str, Damage] = {
    "half": cut(lambda size: size // 2),
    "all but the last byte": cut(lambda size: size - 1),
    "empty": cut(lambda size: 0),
    "first byte flipped": lambda file, others: flip(file, 0),
    "middle byte flipped": lambda file, others: flip(file, file.stat().st_size // 2),
    "last byte flipped": lambda file, others: flip(file, -1),
    "deleted": lambda file, others: file.unlink(),
    "of another seed": lambda file, others: file.write_bytes(others[0].read_bytes()),
    "of another config": lambda file, others: file.write_bytes(others[1].read_bytes()),
}


@dataclasses.dataclass(frozen=True)
class Made:
    """The runs that are copied and damaged; do not change them.

    They are finished, interrupted after epoch 2, diverged in epoch 3, or killed just before the
    end, which is not proven then.
    """

    path: pathlib.Path
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the finished run, without its report."""

    def run(self, how: str) -> pathlib.Path:
        """The run itself."""
        return self.path / how / "run"

    def others(self, how: str) -> list[pathlib.Path]:
        """The same of another seed and of another config."""
        return [self.path / how / name for name in ("seed", "config")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = Made(tmp_path_factory.mktemp("made"))
    for name, config, seed in (
        ("run", THREE, SEED),
        ("seed", THREE, SEED + 1),
        ("config", OTHER, SEED),
    ):
        path = found.path / "finished" / name
        train(path, config, seed, keep=2)  # As a kill at the very end leaves them.
        shutil.copytree(path, found.path / "unproven" / name)
        if name == "run":
            found.results.update(results_of(path))
        (path / FIGURES).mkdir()
        for file in REBUILT:  # As good as a report, and quicker.
            (path / file).write_text(f"{file} of {name}")
        interrupted = train(found.path / "interrupted" / name, config, seed, until=2).path
        shutil.copy(interrupted / CONFIG, found.path / "unproven" / name)
        diverged = shutil.copytree(interrupted, found.path / "diverged" / name)
        writer = RunWriter(RunFolder(diverged))
        writer.restore(config, seed, 2)
        writer.give_up()
    return found


@pytest.fixture
def copy(made: Made, tmp_path: pathlib.Path) -> Iterator[Callable[[str], pathlib.Path]]:
    """A run that may be damaged."""
    path = tmp_path / "run"

    def make(how: str) -> pathlib.Path:
        shutil.rmtree(path, ignore_errors=True)
        return pathlib.Path(shutil.copytree(made.run(how), path))

    yield make
    shutil.rmtree(path, ignore_errors=True)  # Hundreds of them fill a disk.


Look = tuple[str, int, list[str]]


def outcome(action: Callable[[], Any], path: pathlib.Path) -> Any:
    """What an action returns, or the line with which it is refused; it changes nothing."""
    before = files_of(path)
    try:
        result = action()
    except UserError as error:
        result = str(error)
        assert "\n" not in result
        assert str(path) in result
    assert files_of(path) == before
    return result


def look(path: pathlib.Path) -> Look | str:
    """What there is to continue, or why it is refused."""
    found: Look | str = outcome(lambda: RunFolder(path).survey(THREE, SEED), path)
    assert isinstance(found, str) or not any("\n" in line for line in found[2])
    return found


def is_same(path: pathlib.Path, made: Made, but: tuple[str, ...] = ()) -> bool:
    """Whether a finished run is read as the undamaged one."""
    found, expected = RunFolder(path).load(), RunFolder(made.run("finished")).load()
    assert dataclasses.replace(found.record, files={}) == dataclasses.replace(
        expected.record, files={}
    )
    for name, values in expected.history.items():
        if name not in but:
            np.testing.assert_array_equal(found.history[name], values)
    for name, part in expected.parts.items():
        for field, array in vars(part).items():
            np.testing.assert_array_equal(getattr(found.parts[name], field), array)
    return True


def resume(path: pathlib.Path, made: Made) -> str | None:
    """Continues a run, and compares it; returns why it is refused."""
    found = look(path)
    if isinstance(found, str):
        return found
    finish(path, THREE)
    (path / REPORT_JSON).unlink(missing_ok=True)
    if found[0] == "unfinished":
        assert RunFolder(path).checkpoints.epochs()[0] == THREE.train.epochs  # None is later.
        assert results_of(path) == made.results
    assert is_same(path, made, but=("seconds",))
    assert (path / PREDICTIONS).read_bytes() == made.results[PREDICTIONS]
    return None


def test_the_names_here_are_all_files_of_a_run(made: Made) -> None:
    for how in ("finished", "interrupted"):
        assert {*NAMES[how], files.LOCK} == set(files_of(made.run(how)))
    for how, whole in WHOLE.items():
        assert look(made.run(how)) == (*whole, [])
    assert look(made.run("unproven")) == ("unfinished", 3, [])


CASES = [(how, name, kind) for how, names in NAMES.items() for name in names for kind in KINDS]


def damage(how: str, name: str, kind: str, path: pathlib.Path, made: Made) -> None:
    KINDS[kind](path / name, [other / name for other in made.others(how)])


DEEP = pytest.mark.parametrize(
    "deep",
    [pytest.param(False, id="look"), pytest.param(True, id="resume", marks=pytest.mark.slow)],
)
"""Whether what a look promises is tried."""


@DEEP
@pytest.mark.parametrize(("how", "name", "kind"), CASES, ids=map("-".join, CASES))
def test_a_look_at_a_damaged_file_passes_it_over_or_names_it(
    how: str, name: str, kind: str, deep: bool, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    path = copy(how)
    damage(how, name, kind, path, made)
    file = str(path / name)
    found, read = look(path), outcome(RunFolder(path).load, path)
    whole = WHOLE[how]
    if name == CONFIG:
        if kind == "all but the last byte":  # Which is the end of a line.
            assert found == (*whole, [])
        else:
            assert isinstance(found, str)
            assert CONFIG in found
    elif how != "interrupted" and name in OWN:
        (wrong,) = found[2]
        assert found[:2] == ("unfinished", 3 if how == "finished" else 2)
        assert wrong.startswith(f"{file}: ")
    elif how == "interrupted" and name.endswith("2.npz") and found != (*whole, []):
        assert found[:2] == ("unfinished", 1)
        told = [line.startswith(f"{file}: ") for line in found[2]]
        assert told == ([] if kind == "deleted" else [True])
    else:  # Of what is not read, or made again anyway, nothing is said.
        assert found == (*whole, [])
        # The last byte of an archive is the length of a comment.
        assert how == "finished" or not name.endswith("2.npz") or kind == "last byte flipped"
    if how != "finished":
        assert isinstance(read, str)
    elif name in OWN and (name, kind) != (CONFIG, "all but the last byte"):
        foreign = name == CONFIG and kind.startswith("of another")
        assert (CONFIG if foreign else file) in read
    else:
        assert is_same(path, made)
    if deep and found[0] != "diverged":  # Only without its record it cannot be made good.
        assert (resume(path, made) is None) == (name != CONFIG or not isinstance(found, str))


def remove(*names: str) -> Callable[[pathlib.Path], object]:
    return lambda path: [files.remove(path / name) for name in names]


def empty(*names: str) -> Callable[[pathlib.Path], object]:
    return lambda path: [(path / name).write_bytes(b"") for name in names]


NEW, OLD = f"{CHECKPOINTS}/3.npz", f"{CHECKPOINTS}/2.npz"
OUTCOMES: dict[str, tuple[str, Callable[[pathlib.Path], object], int | None]] = {
    "nothing to do": ("finished", empty(REPORT_MD, NEW, OLD), 3),
    "the end again, of predictions": ("finished", empty(PREDICTIONS), 3),
    "the end again, of a history": ("finished", remove(HISTORY), 3),
    "the end and an epoch": ("finished", empty(PREDICTIONS, HISTORY, NEW), 2),
    "all again": ("finished", remove(PREDICTIONS, CHECKPOINTS), 0),
    "from the newest": ("interrupted", empty(HISTORY, f"{CHECKPOINTS}/1.npz"), 2),
    "from the newest, before what is none": (
        "interrupted",
        lambda path: [(path / CHECKPOINTS / f"{epoch}.npz").mkdir() for epoch in (50, 99)],
        2,
    ),
    "from an older one": ("interrupted", empty(OLD), 1),
    "from the beginning": ("interrupted", remove(CHECKPOINTS, HISTORY), 0),
    "nothing good": ("interrupted", empty(OLD, f"{CHECKPOINTS}/1.npz"), None),
    "no end and nothing good": ("finished", empty(PREDICTIONS, NEW, OLD), None),
    "no record": ("interrupted", empty(CONFIG), None),
    "end unproven, as by a kill": ("unproven", lambda path: None, 3),
    "end unproven, a stale history": (
        "unproven",
        lambda path: (path / HISTORY).write_text(
            "\n".join((path / HISTORY).read_text().splitlines()[:-1])
        ),
        3,
    ),
    "end unproven, a wrong history": (
        "unproven",
        lambda path: (path / HISTORY).write_text(
            re.sub(r"\n1,0\.", "\n1,1.", (path / HISTORY).read_text())
        ),
        3,
    ),
    "end unproven, no history": ("unproven", remove(HISTORY), 3),
    "end unproven, wrong predictions": ("unproven", empty(PREDICTIONS), 3),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_what_a_look_promises_comes_true(
    kind: str, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    how, harm, epoch = OUTCOMES[kind]
    path = copy(how)
    harm(path)
    found, before = look(path), files_of(path)
    refused = resume(path, made)
    if epoch is None:
        assert refused == found
        assert "no good checkpoint is left: remove" in refused or f"{CONFIG}: " in refused
        assert files_of(path) == before
    else:
        assert found[1] == epoch
        assert refused is None


CONTENTS = [None, "nothing", "text", "a folder", "a link", "a device"]
CONTENTS += [(whose, epoch) for whose in ("run", "seed", "config") for epoch in (1, 2)]
"""What is in the place of a checkpoint: none, something else, or whose and of which epoch."""


def put(content: Any, file: pathlib.Path, made: Made) -> None:
    if content == "a folder":
        file.mkdir()
    elif content in ("a link", "a device"):
        file.symlink_to("nowhere" if content == "a link" else "/dev/zero")
    elif content in ("nothing", "text"):
        file.write_text("7" * (content == "text"))
    elif content is not None:
        whose, epoch = content
        shutil.copy(made.path / "interrupted" / whose / CHECKPOINTS / f"{epoch}.npz", file)


@DEEP
def test_checkpoints_in_any_disorder_are_passed_over_or_named(
    deep: bool, made: Made, copy: Callable[[str], pathlib.Path]
) -> None:
    """Deleted, renamed, copied, of another run, or something else; the newest good one counts."""

    @hypothesis.settings(max_examples=100, derandomize=True, database=None, deadline=None)
    @hypothesis.given(
        st.fixed_dictionaries(dict.fromkeys((1, 2, 3, 99), st.sampled_from(CONTENTS)))
    )
    def check(contents: dict[int, Any]) -> None:
        path = copy("interrupted")
        files.remove(path / CHECKPOINTS)
        (path / CHECKPOINTS).mkdir()
        for name, content in contents.items():
            put(content, path / CHECKPOINTS / f"{name}.npz", made)
        found = look(path)
        there = {name for name, content in contents.items() if content is not None}
        good = {name for name, content in contents.items() if content == ("run", name)}
        if there and not good:
            assert isinstance(found, str)
            assert f"{CHECKPOINTS}/" in found
            assert "no good checkpoint" in found
        else:
            newest = max(good, default=0)
            wrong = [f"{path / CHECKPOINTS}/{n}.npz" for n in sorted(there) if n > newest]
            assert found[:2] == ("unfinished", newest)
            assert sorted(line.partition(": ")[0] for line in found[2]) == wrong
        if deep:
            assert (resume(path, made) is None) == (not isinstance(found, str))

    check()


ONE = Experiment("one", "Which?", {"a": THREE})
ANOTHER = Experiment("one", "Which?", {"a": OTHER})


@pytest.fixture
def folder(made: Made, tmp_path: pathlib.Path) -> ExperimentFolder:
    """An experiment that may be damaged: a finished run and one that is interrupted."""
    folder = ExperimentFolder(tmp_path / "experiment")
    folder.open(ONE, (SEED, SEED + 1))
    shutil.copytree(made.run("finished"), folder.path / "runs" / "a-seed7")
    shutil.copytree(made.others("interrupted")[0], folder.path / "runs" / "a-seed8")
    for path in (folder.path / "runs").iterdir():  # As the experiment names its runs.
        record = RunFolder(path).read()
        files.write_json(path / CONFIG, dataclasses.replace(record, name="a"), FORMAT)
    assert len(table.collect(folder).rows) == 2
    return folder


def replace_run(how: str, other: int) -> Callable[[ExperimentFolder, Made], object]:
    def replace(folder: ExperimentFolder, made: Made) -> None:
        path = folder.run("a", SEED).path
        shutil.rmtree(path)
        shutil.copytree(made.others(how)[other], path)

    return replace


def damage_run(name: str, kind: str) -> Callable[[ExperimentFolder, Made], object]:
    return lambda folder, made: KINDS[kind](folder.run("a", SEED).path / name, [])


HARM: dict[str, tuple[Callable[[ExperimentFolder, Made], object], str]] = {
    "half a record": (damage_run(CONFIG, "half"), f"a-seed7/{CONFIG}: damaged"),
    "no history": (damage_run(HISTORY, "deleted"), f"a-seed7/{HISTORY}: missing"),
    "a bit": (damage_run(PREDICTIONS, "middle byte flipped"), f"a-seed7/{PREDICTIONS}: damaged"),
    "a run of another seed": (replace_run("finished", 0), f"a-seed7/{CONFIG}: is another run"),
    "a run of another config": (replace_run("finished", 1), f"a-seed7/{CONFIG}: is another run"),
    "a diverged one, seed": (replace_run("diverged", 0), f"a-seed7/{CONFIG}: is another run"),
    "a diverged one, config": (replace_run("diverged", 1), f"a-seed7/{CONFIG}: is another run"),
}


@pytest.mark.parametrize("kind", HARM)
def test_an_experiment_refuses_a_run_that_is_damaged_or_another(
    kind: str, made: Made, folder: ExperimentFolder
) -> None:
    harm, told = HARM[kind]
    harm(folder, made)
    assert told in outcome(lambda: table.collect(folder), folder.path)


HARMFUL = [kind for kind in KINDS if kind not in ("all but the last byte", "of another seed")]
"""Without the end of a line a declaration says the same, and one for other seeds is good."""


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_damaged_declaration_of_an_experiment_is_named(
    kind: str, folder: ExperimentFolder, tmp_path: pathlib.Path
) -> None:
    another = ExperimentFolder(tmp_path / "another")
    another.open(ANOTHER, (SEED, SEED + 1))
    KINDS[kind](folder.path / EXPERIMENT, [another.path / EXPERIMENT] * 2)
    told = CONFIG if kind == "of another config" else EXPERIMENT  # That of a run then.
    assert told in outcome(lambda: table.collect(folder), folder.path)
    assert EXPERIMENT in outcome(lambda: folder.open(ONE, (SEED, SEED + 1)), folder.path)
