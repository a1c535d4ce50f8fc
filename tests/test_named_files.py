"""Files that a user names on the command line: one that is there is replaced, whole, and that is
said; where it cannot be, the old one stays."""

import errno
import re
from pathlib import Path

import pytest
from few import SPEC, few_images

import gammabeta
from gammabeta import bench, commands, disk
from gammabeta.arguments import REPLACED
from gammabeta.cli import main

NAMED = ("demo", "report", "compact", "export", "delta", "bench")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few_images(monkeypatch)
    monkeypatch.setattr(bench, "measure", lambda *_, **__: {"rows": []})
    monkeypatch.setattr(bench, "faults", lambda _: [])
    return gammabeta.train(SPEC, engine="eager", device="cpu")


def words(command, run, file):
    """What writes `file`."""
    return {
        "delta": ["delta", run.id, file],
        "report": ["report", "--out", file],
        "bench": ["bench", "--out", file, "--json"],
    }[command]


@pytest.mark.parametrize("command", ["delta", "report", "bench"])
def test_a_file_that_is_there_is_replaced_and_that_is_said(run, capsys, command):
    assert main(words(command, run, "file")) == 0
    assert "in place of what was there" not in "".join(capsys.readouterr())
    written = Path("file").read_bytes()
    Path("file").write_bytes(b"mine")
    assert main(words(command, run, "file")) == 0
    assert "wrote file, in place of what was there\n" in "".join(capsys.readouterr())
    assert Path("file").read_bytes() == written


@pytest.mark.parametrize("command", ["delta", "report", "bench"])
def test_a_full_disk_leaves_the_old_file(run, capsys, monkeypatch, command):
    Path("file").write_bytes(b"mine")
    write = disk.write_all

    def full(descriptor, data):
        write(descriptor, data[:10])
        if len(data) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_all", full)
    assert main(words(command, run, "file")) == 1
    assert "could not write file (No space left on device)" in capsys.readouterr().err
    assert Path("file").read_bytes() == b"mine"
    assert sorted(path.name for path in Path().iterdir()) == ["file", "runs"]


@pytest.mark.parametrize("command", ["delta", "report", "bench"])
@pytest.mark.parametrize("file", ["nowhere/file", "runs", "/proc/file", "null\0byte"])
def test_where_none_can_be_written_is_said_before_the_work(run, capsys, monkeypatch, command, file):
    monkeypatch.setattr(bench, "measure", None)
    monkeypatch.setattr(gammabeta.Run, "network", None)
    assert main(words(command, run, file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("make it|name a file|another folder|name another", line)


@pytest.mark.parametrize("command", NAMED)
def test_help_says_so(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert REPLACED in " ".join(capsys.readouterr().out.split())


def test_no_command_writes_in_another_way():
    for path in Path(commands.__file__).parent.glob("*.py"):
        found = re.findall(r"write_text|write_bytes|\bopen\(|\.save\(", path.read_text())
        assert not found, f"{path}: {found}"
