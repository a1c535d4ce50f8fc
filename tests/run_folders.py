"""What the tests of the store share: a tiny state, and ways to look at a folder."""

from pathlib import Path

import pytest
import torch

from gammabeta.store import FORMAT, RunFolder

SPEC = {"format": FORMAT, "lr": 0.1, "model": "m"}
INPUTS = {"data": {"sha256": "ab"}}


def state(value: float) -> dict[str, torch.Tensor]:
    return {"trained/bn.weight": torch.full((3,), value), "step": torch.tensor(int(value))}


def loaded(run: RunFolder) -> tuple[int, float]:
    """(epoch, value) of the checkpoint that loads, having checked all of it."""
    found, _ = run.load_checkpoint()
    assert found is not None
    value = found.tensors["step"].item()
    assert torch.equal(found.tensors["trained/bn.weight"], torch.full((3,), float(value)))
    return found.epoch, value


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def status(run: RunFolder) -> str:
    return run.status


def one_line(raised: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(raised.value)
    assert text
    assert "\n" not in text
    return text
