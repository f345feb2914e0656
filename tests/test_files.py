import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from sumrnn import files
from sumrnn.files import RunError
from tests.conftest import SECONDS


def test_atomic_write_replaces_or_leaves_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "newer")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_sealed_file_comes_back_and_any_other_content_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    files.write_sealed(path, {"format": 1, "seed": 7, "ä": [0.1, None, "\n"]})
    assert files.read_sealed(path, 1) == {"format": 1, "seed": 7, "ä": [0.1, None, "\n"]}
    with pytest.raises(ValueError, match="format = 2"):
        files.read_sealed(path, 2)
    path.write_text(path.read_text().replace("7", "8", 1))
    with pytest.raises(ValueError, match="its sha256 is not that of its content"):
        files.read_sealed(path, 1)


@hypothesis.given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)
def test_no_flipped_bit_changes_what_a_sealed_file_says(
    position: int, bit: int, tmp_path: pathlib.Path
) -> None:
    path, fields = tmp_path / "a.json", {"format": 1, "seeds": [1, 20], "rate": 0.001}
    files.write_sealed(path, fields)
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)
    found = None
    with contextlib.suppress(RunError), files.explain(path):
        found = files.read_sealed(path, 1)
    assert found in (None, fields)


def test_sums_are_those_of_the_system(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, content in (("a b", "1"), ("sub/c", "2")):
        (tmp_path / name).write_text(content)
    files.write_sums(tmp_path, ("a b", "sub/c"))
    if tool := shutil.which("sha256sum"):
        done = subprocess.run(
            [tool, "-c", files.SUMS], cwd=tmp_path, check=True, capture_output=True
        )
        assert done.stdout == b"a b: OK\nsub/c: OK\n"
    sums = files.read_sums(tmp_path)
    for name in ("a b", "sub/c"):
        files.check_sum(tmp_path, name, sums)
    (tmp_path / "a b").write_text("3")
    with pytest.raises(RunError, match=r"a b: damaged \(it does not match SHA256SUMS\)"):
        files.check_sum(tmp_path, "a b", sums)
    (tmp_path / "a b").unlink()
    with pytest.raises(RunError, match="a b: missing"):
        files.check_sum(tmp_path, "a b", sums)


@pytest.mark.parametrize("text", ["", "\n", "abc  file\n", "0" * 64 + " file", "\ud800"])
def test_damaged_sums_are_refused(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / files.SUMS).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(RunError, match="SHA256SUMS: damaged"):
        files.read_sums(tmp_path)


HOLD = """
import pathlib, sys, time
from sumrnn import files
with files.lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_folder_is_one_process_s_until_it_ends_or_is_killed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="another process is at work there"), files.lock(path):
        raise AssertionError
    holder.kill()
    holder.wait(timeout=SECONDS)
    with files.lock(path), files.lock(path):  # This process may take it again.
        assert files.is_empty(path)


def test_what_a_killed_process_was_writing_is_not_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".config.json.4711.tmp").write_text("half")
    (tmp_path / ".60.4711.tmp").mkdir()
    (tmp_path / ".60.4711.tmp" / "state").write_text("half")
    assert files.is_empty(tmp_path)
    for name in (".profile", ".draft.tmp", "4711.tmp"):
        (tmp_path / name).write_text("mine")
    assert not files.is_empty(tmp_path)
    files.clear(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {".profile", ".draft.tmp", "4711.tmp"}


@pytest.mark.timeout(SECONDS)
def test_what_is_no_file_is_not_read(tmp_path: pathlib.Path) -> None:
    pipe, endless = tmp_path / "pipe", tmp_path / "endless"
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    for path in (pipe, endless):
        with pytest.raises(RunError, match=f"{path.name}: must be a file$"), files.explain(path):
            path.read_bytes()


def test_a_link_in_the_place_of_what_is_written_first_is_not_followed(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "thesis").write_text("years")
    path = tmp_path / "report.json"
    files.temporary_of(path).symlink_to(tmp_path / "thesis")
    files.write_atomic(path, "new")
    assert (tmp_path / "thesis").read_text() == "years"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_a_folder_is_removed_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the midst of it, nothing half of it is left under its name."""
    (tmp_path / "folder" / "sub").mkdir(parents=True)

    def killed(path: pathlib.Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        files.remove(tmp_path / "folder")
    assert files.is_empty(tmp_path)
    monkeypatch.undo()
    files.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_as_many_folders_can_be_locked_as_the_system_allows(tmp_path: pathlib.Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 600), hard))
        files.allow_locks(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(soft, 600)
        files.allow_locks(200)
        expected = min(200 + files.SPARE, hard) if hard != resource.RLIM_INFINITY else 712
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_link_is_removed_not_what_it_leads_to(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_text("years")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    files.remove(tmp_path / "link")
    files.remove(tmp_path / "nothing")
    assert (tmp_path / "folder" / "thesis").read_text() == "years"
    files.remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_clears_away_what_a_killed_process_left(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".history.csv.4711.tmp").write_text("half")
    (tmp_path / "history.csv").write_text("whole")
    with files.lock(tmp_path):
        assert {entry.name for entry in tmp_path.iterdir()} == {files.LOCK, "history.csv"}


def test_json_has_no_numbers_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.to_json({"loss": float("nan")})
    assert json.loads(files.to_json({"loss": 0.5})) == {"loss": 0.5}
