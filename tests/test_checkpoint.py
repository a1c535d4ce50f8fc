"""Checkpoints: what is saved loads, and what is damaged is noticed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import INPUTS, SPEC, files, loaded, names, state

from gammabeta import checkpoint as checkpoint_module
from gammabeta.errors import InputError
from gammabeta.store import Checkpoint, RunFolder

pytestmark = pytest.mark.usefixtures("quick")


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
DTYPES += [torch.int16, torch.int8, torch.uint8, torch.bool]
NAMES = st.text(st.sampled_from('abé.0/_- "\\\n'), max_size=8) | st.sampled_from(
    ["trained/blocks.0.conv1.weight", "../..", "optimizer/0/momentum_buffer"]
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    seed = draw(st.integers(0, 1000))
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100
    value = numbers.to(draw(st.sampled_from(DTYPES)))
    return value.t() if len(shape) == 2 else value


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.dictionaries(NAMES, tensors(), max_size=5))
def test_tensors_come_back_equal(run: RunFolder, values: dict[str, torch.Tensor]) -> None:
    run.save_checkpoint(1, values)
    found, notes = run.load_checkpoint()
    assert notes == []
    assert found is not None
    assert list(found.tensors) == sorted(values)
    for name, value in values.items():
        assert found.tensors[name].dtype == value.dtype
        assert found.tensors[name].shape == value.shape
        assert torch.equal(found.tensors[name], value)


def test_nan_views_tied_and_trained_tensors_are_kept(run: RunFolder) -> None:
    base = torch.tensor([[1.0, float("nan")], [float("inf"), -0.0]], requires_grad=True)
    values = {"a": base, "b": base, "row": base[1], "column": base[:, 0].expand(3, 2)}
    run.save_checkpoint(0, values)
    found, _ = run.load_checkpoint()
    assert found == Checkpoint(0, found.tensors if found else {})
    for name, value in values.items():
        assert found.tensors[name].numpy().tobytes() == value.detach().numpy().tobytes()
        found.tensors[name].add_(1)  # own, writable memory


def test_same_tensors_same_bytes(run: RunFolder) -> None:
    names = [f"t{number}" for number in range(9)]
    found = set()
    for order in (names, names[::-1]):
        run.save_checkpoint(1, {name: torch.zeros(2) for name in order})
        found.add((run.path / "checkpoint/1/state.safetensors").read_bytes())
    (data,) = found
    metadata = b'{"__metadata__":{"epoch":"1","format":"pt","gammabeta_format":"1","run":"abc123"},'
    assert data[8:].startswith(metadata)


def test_the_newest_two_are_kept(run: RunFolder) -> None:
    assert run.load_checkpoint() == (None, [])
    assert run.epochs_done == 0
    for process in (os.getpid(), 999999):  # left by kills; process numbers come again
        (run.path / "checkpoint" / f".tmp-1-{process}").mkdir(parents=True)
    for epoch in (1, 2, 10, 9, 11):  # 10 is given up when 9 is saved after it
        run.save_checkpoint(epoch, state(epoch))
        assert loaded(run) == (epoch, epoch)
        assert run.epochs_done == epoch
        assert (run.path / "LAST").read_text() == f"{epoch}\n"
    assert names(run.path / "checkpoint") == ["11", "9"]


def test_refused_checkpoints(run: RunFolder) -> None:
    with pytest.raises(InputError, match="0 or more"):
        run.save_checkpoint(-1, {})
    with pytest.raises(InputError, match="rename that tensor"):
        run.save_checkpoint(1, {"__metadata__": torch.zeros(1)})
    assert not (run.path / "checkpoint").exists()


def two(run: RunFolder) -> Path:
    """Checkpoints 11 and 12 in the run; the path of the newer."""
    run.save_checkpoint(11, state(11))
    run.save_checkpoint(12, state(12))
    return run.path / "checkpoint" / "12"


@pytest.mark.parametrize("name", ["state.safetensors", "SHA256SUMS"])
def test_every_flipped_bit_is_found(run: RunFolder, name: str) -> None:
    path = two(run) / name
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 13):  # 13: every bit of a byte has its turn
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        found, notes = run.load_checkpoint()
        assert found is not None
        assert found.epoch == 11, bit
        assert notes == ["checkpoint 12 is damaged (checksum): using checkpoint 11"]
    path.write_bytes(good)
    assert loaded(run) == (12, 12)


@pytest.mark.parametrize("name", ["state.safetensors", "SHA256SUMS"])
def test_every_truncation_is_found(run: RunFolder, name: str) -> None:
    path = two(run) / name
    good = path.read_bytes()
    for length in [*range(0, len(good), 5), len(good) - 1]:
        path.write_bytes(good[:length])
        assert loaded(run) == (11, 11)
    path.write_bytes(good + b"\0")
    assert loaded(run) == (11, 11)


def forged(run: RunFolder, target: Path, run_id: str, epoch: int) -> None:
    """Another run's or epoch's checkpoint, whole in itself, copied to `target`."""
    other = RunFolder.create(run.path.parent.parent / "others", run_id, SPEC, INPUTS)
    other.save_checkpoint(epoch, state(epoch))
    shutil.copytree(other.path / "checkpoint" / str(epoch), target, dirs_exist_ok=True)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def foreign_bytes(target: Path, data: bytes) -> None:
    (target / "state.safetensors").write_bytes(data)
    (target / "SHA256SUMS").write_bytes(checkpoint_module._sums(data))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda run, new: (new / "state.safetensors").unlink(), "state.safetensors is missing"),
        (lambda run, new: (new / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda run, new: replaced_by_a_file(new), "unreadable: Not a directory"),
        (lambda run, new: emptied(new), "state.safetensors is missing"),
        (lambda run, new: foreign_bytes(new, b"PK\3\4 no tensors"), "not safetensors"),
        (lambda run, new: foreign_bytes(new, b""), "not safetensors"),
        (lambda run, new: foreign_bytes(new, b"\2" + b"\0" * 7 + b"{}"), "its gammabeta_format"),
        (lambda run, new: forged(run, new, "other", 12), "its run is other, not abc123"),
        (lambda run, new: forged(run, new, "abc123", 13), "its epoch is 13, not 12"),
    ],
)
def test_damaged_checkpoints_are_passed_over(
    run: RunFolder, damage: Callable[[RunFolder, Path], object], why: str
) -> None:
    new = two(run)
    damage(run, new)
    found, notes = run.load_checkpoint()
    assert found is not None
    assert found.epoch == 11
    assert len(notes) == 1
    assert notes[0].startswith(f"checkpoint 12 is damaged ({why}")
    assert notes[0].endswith("): using checkpoint 11")
    run.save_checkpoint(12, state(12))  # and training mends it
    assert loaded(run) == (12, 12)


def test_with_all_checkpoints_damaged_there_is_none(run: RunFolder) -> None:
    two(run)
    for path in (run.path / "checkpoint").glob("*/SHA256SUMS"):
        path.unlink()
    found, notes = run.load_checkpoint()
    assert found is None
    assert notes == [
        f"checkpoint {epoch} is damaged (SHA256SUMS is missing): no good one is left"
        for epoch in (12, 11)
    ]


@pytest.mark.parametrize("last", [None, b"", b"x", b"99\n", b"-1", b"012", b"\xff\n", b"1" * 9000])
def test_without_a_good_pointer_the_newest_is_used(run: RunFolder, last: bytes | None) -> None:
    two(run)
    (run.path / "checkpoint" / "notes").mkdir()
    if last is None:
        (run.path / "LAST").unlink()
    else:
        (run.path / "LAST").write_bytes(last)
    assert loaded(run) == (12, 12)
    assert run.load_checkpoint()[1] == []
    assert run.epochs_done == 12


def test_the_pointer_decides_but_does_not_lose_a_newer_good_one(run: RunFolder) -> None:
    two(run)
    (run.path / "LAST").write_text("11\n")
    assert loaded(run) == (11, 11)
    (run.path / "checkpoint/11/SHA256SUMS").unlink()
    assert loaded(run) == (12, 12)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_agrees(run: RunFolder) -> None:
    folder = two(run)
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "state.safetensors: OK\n"


def test_nothing_is_pickled(run: RunFolder) -> None:
    two(run)
    run.record_session({})
    run.append_metrics({"epoch": 1})
    run.write_result({"status": "ok"})
    with run.lock():
        pass
    names = files(run.path)
    assert len(names) == 11
    for name in names:
        start = (run.path / name).read_bytes()[:4]
        assert not start.startswith((b"\x80", b"PK", b"(", b"]\x94", b"\x93NUMPY")), name
