"""The data set on the device, cut into batches, and the sums that metrics are made of."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gammabeta.data import Dataset, Split
from gammabeta.data.augment import EpochPlan, augment, normalise
from gammabeta.spec import RunSpec

if TYPE_CHECKING:
    from gammabeta.processes import Processes

# Pixels at once, at least: on a GPU launching kernels would take longer than running them.
_EVALUATION_PIXELS = {"cpu": 128 * 32**2, "cuda": 2500 * 32**2}


class Batches:
    """Batches of normalised images: float32 (B, C, H, W), channels_last; labels int64 (B,)."""

    def __init__(self, data: Dataset, spec: RunSpec, device: torch.device) -> None:
        self.data, self.spec, self.device = data, spec, device
        assert isinstance(data.train, Split)
        assert isinstance(data.test, Split)
        self._images = torch.from_numpy(data.train.images).to(device)
        self._labels = torch.from_numpy(data.train.labels).to(device)
        self._test_images = torch.from_numpy(data.test.images).to(device)
        self._test_labels = torch.from_numpy(data.test.labels).to(device)
        self._brightness: Tensor | None = None

    def begin_epoch(self, plan: EpochPlan) -> None:
        self._order = self._kept("_order", plan.order)
        self._shift = self._kept("_shift", plan.shift)
        self._flip = self._kept("_flip", plan.flip)
        if plan.brightness is not None:
            self._brightness = self._kept("_brightness", plan.brightness)

    def drawn(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """What tells the batch start..stop of the epoch's order from others; small, if it can be.
        `images_of` and `labels_of` make the batch of it, on the device alone: that a CUDA graph can
        do, whose inputs these are."""
        return (self._order[start:stop],)

    def labels_of(self, drawn: Sequence[Tensor]) -> Tensor:
        return self._labels[drawn[0]]

    def images_of(self, drawn: Sequence[Tensor]) -> Tensor:
        """The images, augmented."""
        index = drawn[0]
        pixels = augment(
            self._images[index], self._shift[index], self._flip[index], self.spec.crop_padding
        )
        added = None if self._brightness is None else self._brightness[index]
        return normalise(pixels, self.data.mean, self.data.std, added)

    def images(self, start: int, stop: int) -> Tensor:
        """The images start..stop of the epoch's order, augmented."""
        return self.images_of(self.drawn(start, stop))

    def labels(self, start: int, stop: int) -> Tensor:
        return self.labels_of(self.drawn(start, stop))

    def test(self, first: int = 0, stride: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of the whole test set, or of every `stride`-th batch from `first` on."""
        size = self._test_size()
        for start in range(first * size, len(self._test_labels), stride * size):
            batch = slice(start, start + size)
            yield self._normalised(self._test_images[batch]), self._test_labels[batch]

    def close(self) -> None:
        """No more batches are wanted. What works in the background for them ends."""

    def _test_size(self) -> int:
        """Test images at once. Under the policy "batch" an image's logits depend on its batch: then
        it is a training one."""
        if self.spec.statistics == "batch":
            return self.spec.batch_size
        fitting = _EVALUATION_PIXELS[self.device.type] // self._pixels()
        return max(self.spec.batch_size, fitting)

    def _pixels(self) -> int:
        """Of a test image."""
        _, height, width, _ = self._test_images.shape
        return height * width

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.data.mean, self.data.std)

    def _kept(self, name: str, values: np.ndarray) -> Tensor:
        """An array of the epoch's plan, where that of the last epoch lay: a CUDA graph reads it
        there."""
        home: Tensor | None = self.__dict__.get(name)
        given = torch.from_numpy(values)
        if home is None or home.shape != given.shape:
            return given.to(self.device, copy=True)
        return home.copy_(given)


class MadeBatches(Batches):
    """Those that something else than the device makes: images and labels are what is drawn."""

    def drawn(self, start: int, stop: int) -> tuple[Tensor, ...]:
        return self.images(start, stop), self.labels(start, stop)

    def images_of(self, drawn: Sequence[Tensor]) -> Tensor:
        return drawn[0]

    def labels_of(self, drawn: Sequence[Tensor]) -> Tensor:
        return drawn[1]


class Totals:
    """Sums over the steps of an epoch of some members, on the device: nothing waits until `mean` is
    called, and a CUDA graph can add to them. processes: whose sums are added to these."""

    def __init__(
        self, device: torch.device, processes: "Processes | None" = None, members: int = 1
    ) -> None:
        self._processes = processes
        self._loss = torch.zeros(members, dtype=torch.float64, device=device)
        self._correct = torch.zeros(members, dtype=torch.int64, device=device)
        self._count = torch.zeros_like(self._correct)

    def clear(self, row: int = 0) -> None:
        """Of one member."""
        for each in (self._loss, self._correct, self._count):
            each[row] = 0

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """loss: (members) or (), means over `count` images, of which `correct` were right."""
        self._loss += loss.detach().double() * count
        self._correct += correct
        self._count += count

    def mean(self, row: int = 0) -> tuple[float, float]:
        """Loss and accuracy of one member."""
        sums = torch.stack([self._loss, self._correct.double(), self._count.double()])
        loss, correct, count = sums[:, row].tolist()
        if self._processes is not None:
            loss, correct, count = self._processes.sums(loss, correct, count)
        return loss / count, correct / count


class TestTotals:
    """Sums over the test set, on the device. processes: whose sums are added to these."""

    __test__ = False  # the name is no test's

    def __init__(self, device: torch.device, processes: "Processes | None" = None) -> None:
        self._processes = processes
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, top 5
        self._count = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: fp32 (B, classes)."""
        loss = F.cross_entropy(logits, labels, reduction="sum")
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        self._sums += torch.stack([loss.double(), best[:, 0].sum().double(), best.sum().double()])
        self._count += len(labels)

    def metrics(self, num_classes: int) -> dict[str, float]:
        """test_loss, test_accuracy and, with more than ten classes, test_top5."""
        sums = [*self._sums.tolist(), float(self._count)]
        if self._processes is not None:
            sums = self._processes.sums(*sums)
        loss, correct, top5, count = sums
        found = {"test_loss": loss / count, "test_accuracy": correct / count}
        if num_classes > 10:
            found["test_top5"] = top5 / count
        return found
