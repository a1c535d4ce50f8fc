"""Run folders: records and results, foreign folders, other processes."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from run_folders import INPUTS, SPEC, files, loaded, names, one_line, state, status

from gammabeta.errors import InputError, RunError
from gammabeta.find import find_run
from gammabeta.store import FORMAT, RunFolder, list_runs, remove_runs

pytestmark = pytest.mark.usefixtures("quick")


def test_metrics_survive_a_torn_line(run: RunFolder) -> None:
    assert run.metrics() == []
    run.truncate_metrics(0)
    path = run.path / "metrics.jsonl"
    assert not path.exists()
    run.append_metrics({"epoch": 1, "loss": float("nan"), "more": [float("inf"), (1, 2.5)]})
    run.append_metrics({"epoch": 2})
    good = [{"epoch": 1, "loss": None, "more": [None, [1, 2.5]]}, {"epoch": 2}]
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 2
    for torn in (b"{", b'{"epoch": 3}', b"\0" * 50, b"\xff"):
        path.write_bytes(whole + torn)
        assert run.metrics() == good
        run.append_metrics({"epoch": 3})
        assert run.metrics() == [*good, {"epoch": 3}]
        path.write_bytes(whole + torn)
        run.truncate_metrics(2)
        assert path.read_bytes() == whole
    run.truncate_metrics(1)
    assert run.metrics() == good[:1]
    assert run.epochs_done == 1
    path.write_bytes(b"{")  # nothing but a torn line
    run.append_metrics({"epoch": 1})
    assert run.metrics() == [{"epoch": 1}]


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[1]", b"{}", b'{"epoch": "1"}', b"\xff", b"[" * 9999]
)
def test_garbage_between_records_is_named(run: RunFolder, line: bytes) -> None:
    run.append_metrics({"epoch": 1})
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2 ") as raised:
        run.metrics()
    one_line(raised)
    assert run.epochs_done == 0


@pytest.mark.parametrize("record", [{}, {"epoch": "1"}, {"epoch": float("nan")}])
def test_records_need_an_epoch(run: RunFolder, record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match='number "epoch"'):
        run.append_metrics(record)
    assert run.metrics() == []


def test_json_files_are_plain_and_sorted(run: RunFolder) -> None:
    expected = '{\n "format": 1,\n "lr": 0.1,\n "model": "m"\n}\n'
    assert (run.path / "spec.json").read_text() == expected
    run.record_session({"host": "a"})
    run.record_session({"host": "b"})
    assert run.env == {"sessions": [{"host": "a"}, {"host": "b"}]}
    assert not run.result
    run.write_result({"status": "failed", "loss": float("nan")})
    assert run.result == {"status": "failed", "loss": None}
    assert status(run) == "failed"
    run.write_result({"status": "ok"})
    assert status(run) == "ok"
    with pytest.raises(InputError, match="ok or failed"):
        run.write_result({"status": "fine"})


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"{}", b'{"status": "o', b"\xff\xfe"])
def test_damaged_files_are_absent_or_named(run: RunFolder, data: bytes) -> None:
    (run.path / "result.json").write_bytes(data)
    assert run.result is None
    assert status(run) == "stopped"
    (run.path / "env.json").write_bytes(data)
    with pytest.raises(RunError, match=r"env\.json is damaged"):
        run.record_session({})
    if data != b"{}":
        (run.path / "inputs.json").write_bytes(data)
        with pytest.raises(RunError, match=r"inputs\.json is damaged"):
            _ = run.inputs
    (run.path / "inputs.json").unlink()
    with pytest.raises(RunError, match="could not read"):
        _ = run.inputs


def test_create_opens_what_is_there(run: RunFolder) -> None:
    root = run.path.parent
    again = RunFolder.create(root, run.id, dict(SPEC), {"ignored": 1})
    assert again == run
    assert hash(again) == hash(run)
    assert (again.id, again.spec, again.inputs) == ("abc123", SPEC, INPUTS)
    for other in ({**SPEC, "lr": 0.2}, {**SPEC, "seed": 1}, {"format": FORMAT, "model": "m"}):
        with pytest.raises(InputError, match=r"abc123 has another spec \((lr|seed)\)") as raised:
            RunFolder.create(root, run.id, other, INPUTS)
        one_line(raised)
    assert RunFolder.open(run.path).spec == SPEC


def test_create_loses_a_race_gracefully(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def slow(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", real)
        RunFolder.create(tmp_path, "abc", SPEC, {"data": {}, "winner": 1})
        real(source, target)

    monkeypatch.setattr(os, "replace", slow)
    found = RunFolder.create(tmp_path, "abc", SPEC, {"data": {}, "winner": 2})
    assert found.inputs == {"data": {}, "winner": 1}
    assert names(tmp_path) == ["abc"]


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/b", "../a", ".hidden", "a\0"])
def test_run_ids_stay_in_the_root(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        RunFolder.create(tmp_path / "runs", run_id, SPEC, INPUTS)
    assert names(tmp_path) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("x")
    for each in (root, root / "deeper"):
        with pytest.raises(InputError, match="choose another folder for runs") as raised:
            RunFolder.create(each, "abc", SPEC, INPUTS)
        one_line(raised)
    with pytest.raises(InputError, match="no folder of runs"):
        list_runs(root)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_root_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    for root in (tmp_path, tmp_path / "new" / "runs"):
        with pytest.raises(InputError, match=os.strerror(number)) as raised:
            RunFolder.create(root, "abc", SPEC, INPUTS)
        assert "choose another folder for runs" in one_line(raised)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "no spec.json"),
        (b'{"format": 2}', "has format 2, this gammabeta reads 1: upgrade it"),
        (b'{"format": "x"}', "has format 'x'"),
        (b"{}", "has format None"),
        (b"[1]", "is damaged"),
        (b"{", "is damaged"),
        (b"\x80\x04", "is damaged"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, spec: bytes | None, message: str) -> None:
    path = tmp_path / "abc"
    path.mkdir()
    if spec is not None:
        (path / "spec.json").write_bytes(spec)
    before = files(path)
    with pytest.raises(InputError, match=message) as raised:
        RunFolder.open(path)
    one_line(raised)
    with pytest.raises(InputError, match=message):
        RunFolder.create(tmp_path, "abc", SPEC, INPUTS)
    assert list_runs(tmp_path) == []
    assert files(path) == before


def test_open_refuses_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, message in [("file", "no run folder"), ("none", "does not exist"), ("a\0", "cannot")]:
        with pytest.raises(InputError, match=message) as raised:
            RunFolder.open(tmp_path / name)
        one_line(raised)


def test_open_knows_the_id_of_the_working_folder(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save_checkpoint(1, state(1))
    monkeypatch.chdir(run.path)
    here = RunFolder.open(Path())
    assert here.id == run.id
    assert loaded(here) == (1, 1)


def test_list_and_find(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert list_runs(root) == []
    with pytest.raises(InputError, match="there are no runs in"):
        find_run(root, "a")
    for age, name in enumerate(["bbb1", "aaa2", "aaa1", "aaa"]):
        path = RunFolder.create(root, name, SPEC, INPUTS).path / "spec.json"
        os.utime(path, (1000 - age, 1000 - age))
    shutil.copytree(root / "bbb1", root / ".gammabeta-tmp-x")
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("x")
    assert [run.id for run in list_runs(root)] == ["aaa", "aaa1", "aaa2", "bbb1"]
    assert find_run(root, "b").id == "bbb1"
    assert find_run(root, "aaa").id == "aaa"  # a whole id, though it also begins others
    for prefix, message in [
        ("aa", "'aa' could be aaa, aaa1, aaa2: write more"),
        ("", "id is empty: write its first digits"),
        ("bbb2", "no run 'bbb2' in .*: did you mean bbb1"),
        ("zz", "no run 'zz'"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            find_run(root, prefix)
        one_line(raised)
    for number in range(20):
        RunFolder.create(root, f"c{number}", SPEC, INPUTS)
    with pytest.raises(InputError, match="and 15 more"):
        find_run(root, "c")


def test_what_kills_left_is_swept_and_nothing_else(run: RunFolder) -> None:
    root = run.path.parent
    for name in (".gammabeta-tmp-old-12345678", ".gammabeta-tmp-new-12345678", ".tmp-of-others"):
        (root / name).mkdir()
        if "new" not in name:
            os.utime(root / name, (1000, 1000))
    (run.path / ".tmp-result.json-77").write_text("{")
    RunFolder.create(root, "second", SPEC, INPUTS)
    hidden = {name for name in names(root) if name.startswith(".")}
    assert hidden == {".gammabeta-tmp-new-12345678", ".tmp-of-others"}
    with run.lock():
        assert files(run.path) == ["inputs.json", "lock", "spec.json"]


def test_remove(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.path.parent
    with run.lock(), pytest.raises(RunError, match="is being trained"):
        run.remove()
    assert list_runs(root) == [run]

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(RunError, match=r"could not remove .* \(Permission denied\)"):
            run.remove()
    assert list_runs(root) == [run]
    other = RunFolder.create(root, "other", SPEC, INPUTS)
    real = os.replace

    def refuse_the_second(source: Path, target: Path) -> None:
        if "other" in str(source):
            refuse()
        real(source, target)

    with monkeypatch.context() as patch:  # the first is put back
        patch.setattr(os, "replace", refuse_the_second)
        with pytest.raises(RunError, match=r"other \(Permission denied\): nothing was removed"):
            remove_runs([run, other])
    assert names(root) == ["abc123", "other"]
    for closed in (root, run.path):
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, _, closed=closed: Path(path) != closed)
            with pytest.raises(RunError) as raised:
                run.remove()
        assert str(raised.value) == (
            f"could not remove {run.path} ({closed} is read-only): nothing was removed; "
            "mend that and try again"
        )
    other.remove()
    run.remove()
    assert names(root) == []
    with pytest.raises(RunError, match="could not"):
        run.append_metrics({"epoch": 1})
    assert names(root) == []


HOLDER = """
import sys, time
from pathlib import Path
from gammabeta.store import RunFolder
with RunFolder.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_and_a_killed_holder(run: RunFolder) -> None:
    assert status(run) == "stopped"
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert status(run) == "running"
            message = f"run abc123 is being trained by process {holder.pid} on .*: wait for it, or "
            with pytest.raises(RunError, match=message) as raised, run.lock():
                pytest.fail("two holders")
            one_line(raised)
            with pytest.raises(RunError, match="is being trained"):
                run.remove()
            assert RunFolder.open(run.path).spec == SPEC
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    assert status(run) == "stopped"
    with run.lock():
        assert status(run) == "running"
        run.write_result({"status": "ok"})
        assert status(run) == "ok"


def test_the_lock_is_released_and_its_errors_are_not_swallowed(run: RunFolder) -> None:
    with pytest.raises(FileNotFoundError, match="mine"), run.lock():
        raise FileNotFoundError("mine")
    (run.path / "lock").write_text("process 1 on a host with a very, very long name" * 3)
    match = f"process {os.getpid()} on "
    with run.lock(), pytest.raises(RunError, match=match) as raised, run.lock():
        pytest.fail("two holders")
    assert "very long name" not in one_line(raised)
    assert status(run) == "stopped"


def test_a_look_at_the_status_does_not_stop_a_run(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with run.lock():
        pass
    looking = os.open(run.path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert status(run) == "stopped"  # two may look at a time
    monkeypatch.setattr(time, "sleep", lambda _: os.close(looking))  # it looks away meanwhile
    with run.lock():
        assert status(run) == "running"


def test_a_lock_that_cannot_be_taken(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="No locks available") as raised, run.lock():
        pytest.fail("not locked")
    one_line(raised)
    assert status(run) == "stopped"
