"""What to write instead, where a shell's variable is empty or a file stands in the way."""

from pathlib import Path

import pytest
from one_line import check, run
from stores import write_run

from gammabeta import RunSpec


@pytest.mark.parametrize(
    "line",
    ["reproduce random --out file/x", "reproduce random --out file/x/y", "report --out file/x",
     "report --out x.html --figures file/x", "demo --out file/x.html", "bench --out file/x",
     "delta 01 file/x"],
)  # fmt: skip
def test_a_file_where_a_folder_is_wanted_is_called_a_file(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    message = "file is a file, not a folder: move it away, or name another"
    check(*run(capsys, *line.split()), message, tmp_path, {"file"})


@pytest.mark.parametrize("command", ["analyze", "runs show", "runs rm", "compact", "delta"])
def test_an_empty_id_is_no_id(command, tmp_path, monkeypatch, capsys):
    """Of a shell's variable that is not set; it is the start of every id."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", RunSpec(model="cifar_resnet_8_4", data="synthetic"), None)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    words = ["delta", "", "x.delta"] if command == "delta" else [*command.split(), ""]
    check(*run(capsys, *words), "a run's id is empty: write its first digits", tmp_path, there)
