"""What every contender of a benchmark does: one whole training step, always on the same batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gammabeta import rng
from gammabeta.data.augment import EpochPlan
from gammabeta.engine.batches import MadeBatches
from gammabeta.models import architecture, create_model
from gammabeta.names import parse_name
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset, select


@dataclass(frozen=True)
class Case:
    """A step is forward, backward and SGD with momentum and weight decay. The batch is ready on the
    device: it is drawn, augmented and normalised before, for all contenders alike."""

    model: str
    trainable: str
    precision: str
    batch: int
    device: torch.device

    @property
    def image(self) -> int:
        """Height and width of the images."""
        return 224 if parse_name(self.model).family == "imagenet_resnet" else 32

    def spec(self) -> RunSpec:
        return RunSpec(
            model=self.model, trainable=self.trainable, data="synthetic",
            precision=self.precision, batch_size=self.batch,
        )  # fmt: skip

    def make(self, memory_format: torch.memory_format) -> tuple[nn.Module, Subset]:
        """The network at its random start, on the device, and the subset; not yet applied."""
        model = create_model(self.model).to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        return model, select(model, self.trainable)

    def images(self) -> Tensor:
        """Noise, fp32 (B, 3, H, W), channels_last."""
        draw = rng.generator(0, "bench/images")
        shape = (self.batch, self.image, self.image, 3)
        pixels = torch.from_numpy(draw.standard_normal(shape, dtype=np.float32))
        return pixels.to(self.device).permute(0, 3, 1, 2)

    def labels(self) -> Tensor:
        """int64 (B,)"""
        classes = architecture(self.model).get_parameter("fc.bias").numel()
        draw = rng.generator(0, "bench/labels")
        return torch.from_numpy(draw.integers(0, classes, self.batch)).to(self.device)


class OneBatch(MadeBatches):
    """In the place of an engine's batches: the images of the case, whatever is asked for."""

    def __init__(self, case: Case) -> None:
        self._ready, self._answers = case.images(), case.labels()

    def begin_epoch(self, plan: EpochPlan) -> None:
        pass

    def images(self, start: int, stop: int) -> Tensor:
        return self._ready

    def labels(self, start: int, stop: int) -> Tensor:
        return self._answers
