"""A run in the store, and the network it trained."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gammabeta.build import check_start, make_network
from gammabeta.checkpoint import Checkpoint
from gammabeta.errors import InputError, RunError
from gammabeta.find import find_run
from gammabeta.gammas import gammas
from gammabeta.sparse import attached
from gammabeta.spec import RunSpec
from gammabeta.store import RunFolder


@dataclass(frozen=True)
class Run:
    """A run in the store. `result` is None until it has ended; its "status" is "ok" or "failed"."""

    spec: RunSpec
    folder: RunFolder

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def result(self) -> dict[str, Any] | None:
        return self.folder.result

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch; accuracies and shares are in 0..1."""
        return self.folder.metrics()

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in 0..1."""
        return float(self._finished()["test_accuracy"])

    def checkpoint(self) -> Checkpoint:
        """The newest good checkpoint. Raises RunError where there is none."""
        checkpoint, notes = self.folder.load_checkpoint()
        if checkpoint is None:
            why = "; ".join(notes) or self._how_to_finish()
            raise RunError(f"run {self.id} has no good checkpoint: {why}")
        return checkpoint

    def network(self, checkpoint: Checkpoint | None = None) -> nn.Module:
        """The trained network, in evaluation mode: rebuilt from the seed, checked against the
        fingerprint, with the trained values and statistics of `checkpoint`, by default the last."""
        classes = self.folder.inputs["data"]["num_classes"]
        model, subset = make_network(self.spec, classes)
        check_start(self.folder, model)
        checkpoint = checkpoint or self.checkpoint()
        subset.apply(model)
        subset.load_state(model, checkpoint.tensors)
        for entries in attached(model).values():
            entries.detach()
        return model.eval()

    def gammas(self) -> dict[str, torch.Tensor]:
        """Parameter name -> trained gamma (C,)."""
        return gammas(self.network())

    def _finished(self) -> dict[str, Any]:
        if self.result is None or self.result["status"] != "ok":
            done = f"epoch {self.folder.epochs_done} of {self.spec.epochs}"
            status = {"stopped": "was stopped", "failed": "has failed"}.get(
                self.folder.status, f"is {self.folder.status}"
            )
            raise RunError(f"run {self.id} {status} after {done}: {self._how_to_finish()}")
        return self.result

    def _how_to_finish(self) -> str:
        if self.folder.status == "running":
            return "wait until it has finished"
        spec, runs = self.folder.path / "spec.json", self.folder.path.parent
        words = ["gammabeta", "train", "--spec", str(spec), "--runs", str(runs)]
        if self.spec.data not in ("digits", "synthetic"):  # which need no files
            words += ["--data-dir", "DIR"]
        return f"train it first, with {shlex.join(words)}"


def load_run(run: str | Path, runs: str | Path | None = None) -> Run:
    """The run in a folder such as runs/0123456789ab; with `runs`, that of an id, or of the start of
    one, in this folder. Raises InputError where there is none.
    """
    if not isinstance(run, str | os.PathLike):
        raise InputError(
            f"load_run takes a folder or an id, such as 'runs/0123456789ab', not {run!r}"
        )
    folder = RunFolder.open(Path(run)) if runs is None else find_run(Path(runs), str(run))
    try:
        spec = RunSpec.from_dict(folder.spec)
    except InputError as error:
        raise InputError(f"{folder.path / 'spec.json'}: {error}") from None
    if spec.id != folder.id:
        raise InputError(f"{folder.path} holds the spec of run {spec.id}: it was edited or renamed")
    return Run(spec, folder)
