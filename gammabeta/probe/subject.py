"""What a probe looks at: a trained network and test images, evaluated as the run itself does."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gammabeta.checkpoint import Checkpoint
from gammabeta.data import Dataset
from gammabeta.engine.batches import Batches
from gammabeta.engine.stream import make_batches
from gammabeta.errors import RunError
from gammabeta.run import Run


@dataclass(frozen=True)
class Subject:
    """A trained network, in evaluation mode, on its device. batches: None where no image is needed.
    looked: called with the number of test images after each batch of them.

    Probes may change the network while they measure and leave it as it was.
    """

    run: Run
    network: nn.Module
    batches: Batches | None
    device: torch.device
    looked: Callable[[int], None] = lambda images: None

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images float32 (B, C, H, W), labels int64 (B,)), in the batches the run evaluates in:
        under the policy "batch" logits depend on them."""
        if self.batches is None:
            raise RunError(f"run {self.run.id} was opened without its data: give it test images")
        for images, labels in self.batches.test():
            yield images, labels
            self.looked(len(labels))

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> fp32 (B, classes), in the precision of the run."""
        bf16 = self.run.spec.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, bf16):
            logits: Tensor = self.network(images)
        return logits.float()


def make_subject(
    run: Run, checkpoint: Checkpoint, data: Dataset | None, images: int, device: torch.device,
    looked: Callable[[int], None] = lambda images: None,
) -> Subject:  # fmt: skip
    """The network of a checkpoint, and the first `images` test images of `data`."""
    network = run.network(checkpoint)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = None
    if data is not None:
        some = dataclasses.replace(data, test=data.test.first(images))
        batches = make_batches(some, run.spec, device)
    return Subject(run, network, batches, device, looked)


def short(value: float) -> float:
    """Six significant digits, which is what the files keep of a measured value."""
    return float(f"{value:.6g}")
