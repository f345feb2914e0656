"""The worker where runs fail, processes are killed, and others are at work on the same folders."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import pytest

from sumrnn.devices import mesh
from sumrnn.errors import UserError
from sumrnn.runs import lock, recorder, work
from sumrnn.runs.folder import RunFolder
from sumrnn.runs.progress import Progress
from sumrnn.runs.recorder import Row, Spec
from sumrnn.runs.work import Options
from sumrnn.runs.writer import RunWriter
from tests.conftest import THREE, results_of, train


def spec_of(path: pathlib.Path, seed: int = 7) -> Spec:
    return Spec(RunFolder(path / str(seed)), "sheet", THREE, seed)


def attempt(spec: Spec) -> None:
    """As a process that is killed before its first checkpoint."""
    RunWriter(spec.folder).begin(spec.config, spec.seed, spec.name)


def test_attempts_are_counted_until_the_next_checkpoint_and_gone_at_the_end(
    tmp_path: pathlib.Path,
) -> None:
    spec, seen = spec_of(tmp_path), list[int]()
    attempt(spec)
    attempt(spec)
    assert spec.folder.attempts() == 2

    def watch(seeds: Sequence[int], epoch: int, row: Row) -> None:
        seen.append(spec.folder.attempts())

    with spec.folder.lock():
        recorder.train([spec], 0, mesh.prepare(THREE, 1), every=2, watch=watch)
    assert seen == [3, 0, 0]
    assert spec.folder.read().attempts == 0
    assert results_of(spec.folder.path) == results_of(train(tmp_path / "whole", THREE).path)


def test_a_run_that_kills_its_process_is_tried_alone_and_then_left(tmp_path: pathlib.Path) -> None:
    specs = [spec_of(tmp_path, seed) for seed in (1, 2, 3)]
    for _ in range(2):
        attempt(specs[0])
    for _ in range(3):
        attempt(specs[1])
    seen = list[tuple[int, ...]]()

    def view(progress: Progress) -> None:
        seen.extend([progress.seeds] if progress.epoch == 1 else [])

    done = work.work(specs, Options(retries=2), view=view)
    assert seen == [(1,), (3,)]
    told = "its process ended 3 times before a checkpoint"
    assert (done.done, done.failures) == (2, {("sheet", 2): told})


def test_a_folder_of_something_else_is_refused_or_passed_over(tmp_path: pathlib.Path) -> None:
    specs = [spec_of(tmp_path, seed) for seed in (1, 2)]
    specs[0].folder.path.mkdir()
    (specs[0].folder.path / "thesis").write_text("years")
    with pytest.raises(UserError, match="left alone"):
        work.missing(specs)
    failures: dict[tuple[str, int], str] = {}
    assert work.missing(specs, failures) == specs[1:]
    assert "left alone" in failures["sheet", 1]
    done = work.work(specs, Options())
    assert (done.done, list(done.failures)) == (1, [("sheet", 1)])


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that only pretends to lock."""

    @contextlib.contextmanager
    def hold(path: pathlib.Path, patience: float = 0.0) -> Iterator[None]:
        path.mkdir(parents=True, exist_ok=True)
        yield

    monkeypatch.setattr(lock, "hold", hold)


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("every", [1, 100])
@pytest.mark.parametrize("comes_at", [1, 2])
def test_without_locks_two_workers_on_one_run_never_mix_their_files(
    comes_at: int, every: int, tmp_path: pathlib.Path
) -> None:
    """The one that came first leaves it to the other one, and takes what is left."""
    specs, later = [spec_of(tmp_path, seed) for seed in (1, 2)], list[Progress]()

    def view(progress: Progress) -> None:
        if progress.epoch == comes_at and not later:
            later.append(progress)
            later[0] = work.work([spec_of(tmp_path, 1)], Options(checkpoint_every=1))

    first = work.work(specs, Options(checkpoint_every=every), view=view)
    assert (first.done, later[0].done, first.failures) == (1, 1, {})
    for spec in specs:
        assert spec.folder.survey(THREE, spec.seed) == ("finished", 3, [])
        whole = train(tmp_path / f"whole{spec.seed}", THREE, spec.seed)
        assert results_of(spec.folder.path) == results_of(whole.path)
