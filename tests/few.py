"""What the tests of members and sweeps share: runs of a fraction of a second, and how two of them
are compared."""

import dataclasses

import pytest
import torch

from gammabeta import RunSpec
from gammabeta.data import Split, load_dataset

SPEC = RunSpec(
    model="cifar_resnet_8_4",
    data="synthetic",
    epochs=3,
    batch_size=32,
    subsample=70,
    crop_padding=2,
)
ON = {"engine": "fused", "device": "cpu"}


def few_images(monkeypatch):
    """Fifty test images, whatever the data set."""
    whole = load_dataset("synthetic")
    test = Split(whole.test.images[:50], whole.test.labels[:50])
    data = dataclasses.replace(whole, test=test)
    monkeypatch.setattr("gammabeta.build.load_dataset", lambda *_: data)


def assert_equal(one, two):
    """Up to rounding, and the clock."""
    assert (one.id, one.spec, one.folder.inputs) == (two.id, two.spec, two.folder.inputs)
    assert len(one.metrics) == len(two.metrics) == one.spec.epochs
    for ours, theirs in zip([*one.metrics, one.result], [*two.metrics, two.result], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if not key.endswith("seconds"):
                expected = value if key == "status" else pytest.approx(value, rel=1e-4)
                assert theirs[key] == expected, key
    states = [run.folder.load_checkpoint()[0].tensors for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4)
    files = [
        {str(path.relative_to(run.folder.path)) for path in run.folder.path.rglob("*")}
        for run in (one, two)
    ]
    assert files[0] == files[1]


def stop_at(epoch, place=0):
    """A listener that presses Ctrl-C after so many members have ended this epoch."""
    seen = []

    def listen(event):
        if getattr(event, "record", {}).get("epoch") == epoch:
            seen.append(event)
            if len(seen) > place:
                raise KeyboardInterrupt

    return listen
