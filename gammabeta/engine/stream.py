"""Batches whose images are decoded when they are needed, by threads that work ahead."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gammabeta.data import Dataset, Pictures
from gammabeta.data.augment import EpochPlan, normalise
from gammabeta.data.crops import random_box, test_square, training_square
from gammabeta.data.decode import BrokenImage, Picture
from gammabeta.engine.batches import Batches, MadeBatches
from gammabeta.errors import RunError
from gammabeta.spec import RunSpec

_AHEAD = 2  # batches that are decoded while the engine works on one


def make_batches(data: Dataset, spec: RunSpec, device: torch.device) -> Batches:
    """The batches of a data set, from memory or streamed."""
    if isinstance(data.train, Pictures) and isinstance(data.test, Pictures):
        return StreamedBatches(data, spec, device, data.train, data.test)
    return Batches(data, spec, device)


class StreamedBatches(MadeBatches):
    """As Batches, for images that stay encoded: float32 (B, C, S, S), S being spec.image_size.

    A batch depends on (seed, epoch, start, stop) alone: not on threads, not on what was asked
    before. Raises RunError, naming the file, for an image that cannot be decoded.
    """

    def __init__(
        self, data: Dataset, spec: RunSpec, device: torch.device, train: Pictures, test: Pictures
    ) -> None:
        self.data, self.spec, self.device = data, spec, device
        self._train, self._test = train, test
        self._by_pillow: set[str] = set()
        self._said = False
        self._plan: EpochPlan | None = None
        self._waiting: dict[int, Future[np.ndarray]] = {}  # by place in the epoch's order
        self._pool = ThreadPoolExecutor(train.workers, thread_name_prefix="gammabeta-decode")

    def begin_epoch(self, plan: EpochPlan) -> None:
        self._forget()
        self._plan = plan

    def labels(self, start: int, stop: int) -> Tensor:
        assert self._plan is not None
        return torch.from_numpy(self._train.labels[self._plan.order[start:stop]]).to(self.device)

    def images(self, start: int, stop: int) -> Tensor:
        assert self._plan is not None
        # Who asks for a part of each batch, as one of several processes does, will ask for the
        # same part of the next ones. If not, that costs time and changes nothing.
        for ahead in range(_AHEAD + 1):
            first = start + ahead * self.spec.batch_size
            for place in range(first, min(first + stop - start, len(self._plan.order))):
                if place not in self._waiting:
                    index = int(self._plan.order[place])
                    task = self._pool.submit(self._decode_training, self._plan, index)
                    self._waiting[place] = task
        pixels = self._stacked([self._waiting.pop(place) for place in range(start, stop)])
        added = None
        if self._plan.brightness is not None:
            added = torch.from_numpy(self._plan.brightness[self._plan.order[start:stop]])
            added = added.to(self.device)
        return normalise(pixels, self.data.mean, self.data.std, added)

    def test(self, first: int = 0, stride: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        size, count = self._test_size(), len(self._test.labels)
        starts = range(first * size, count, stride * size)
        batches: list[list[Future[np.ndarray]]] = []
        try:
            for number in range(len(starts) + _AHEAD):
                if number < len(starts):
                    indices = range(starts[number], min(starts[number] + size, count))
                    batches.append([self._pool.submit(self._decode_test, i) for i in indices])
                if number >= _AHEAD:
                    begin = starts[number - _AHEAD]
                    labels = torch.from_numpy(self._test.labels[begin : begin + size])
                    yield self._normalised(self._stacked(batches.pop(0))), labels.to(self.device)
        finally:
            _cancel(future for batch in batches for future in batch)
        self._say()

    def _pixels(self) -> int:
        return self.spec.image_size**2

    def close(self) -> None:
        self._forget()
        self._pool.shutdown(cancel_futures=True)

    def _decode_training(self, plan: EpochPlan, index: int) -> np.ndarray:
        def cut(picture: Picture) -> np.ndarray:
            box = random_box(self.spec.seed, plan.epoch, index, picture.height, picture.width)
            return training_square(picture, box, self.spec.image_size, bool(plan.flip[index]))

        return self._decode(self._train, index, cut)

    def _decode_test(self, index: int) -> np.ndarray:
        return self._decode(
            self._test, index, lambda picture: test_square(picture, self.spec.image_size)
        )

    def _decode(
        self, pictures: Pictures, index: int, cut: Callable[[Picture], np.ndarray]
    ) -> np.ndarray:
        try:
            picture = Picture(pictures.read(index))
            pixels = cut(picture)
        except BrokenImage as error:
            raise RunError(
                f"{pictures.name(index)} is no image that can be decoded ({error}): repair it or "
                "write --skip-broken (a run that has a checkpoint then needs another folder for "
                "runs, as the data change)"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{pictures.name(index)} cannot be read ({reason})") from None
        if picture.by_pillow:
            self._by_pillow.add(pictures.name(index))
        return pixels

    def _stacked(self, futures: Sequence[Future[np.ndarray]]) -> Tensor:
        """uint8 (B, S, S, 3) on the device."""
        return torch.from_numpy(np.stack([future.result() for future in futures])).to(self.device)

    def _forget(self) -> None:
        _cancel(self._waiting.values())
        self._waiting = {}

    def _say(self) -> None:
        """Once, after the first whole epoch: what took longer than it would have to."""
        if self._by_pillow and not self._said:
            self._said = True
            warnings.warn(
                f"{len(self._by_pillow):,} of the images seen so far are no JPEGs, CMYK or faulty "
                f"and were read through Pillow, such as {min(self._by_pillow)}",
                stacklevel=2,
            )


def _cancel(futures: Iterable[Future[np.ndarray]]) -> None:
    for future in futures:
        future.cancel()
