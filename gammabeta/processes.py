"""Several processes that train one run together, started by torchrun: what each takes of a batch,
sums across them, and which of them has gone when one has.

Only imported where there are several. Trained parameters are kilobytes (megabytes with `all`), so
their gradients are summed in one flat buffer after backward, and not by DistributedDataParallel:
it hides the sending of large gradients behind backward, which a buffer this small does not need;
it would rename parameters, not see the leaves of `random:K`, and weigh a short batch wrongly.
"""

import contextlib
import datetime
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gammabeta.errors import GammabetaError, InputError, RunError
from gammabeta.launch import launched
from gammabeta.roles import has_statistics

# Until all are ready: data may have to be read and the passes compiled. Then, for one sum.
_PREPARING, _WORKING = datetime.timedelta(minutes=20), datetime.timedelta(seconds=45)
_READING = datetime.timedelta(days=3)  # while the first process reads millions of images for all
# Values, if more than a few, that are sent to everyone and added there, in the order of the
# processes: gloo's own sum has more rounds, and in a step it is the waiting that takes time.
_SMALL = 1 << 17
_ENDING = 5.0  # seconds in which those that are left say so


class Processes:
    """This process among the others. Every method that sends is called by all of them, in the same
    order, and raises RunError or InputError, naming the process, when one has gone.

    rank: 0 is the first, which alone keeps the run folder. together: whether BatchNorm looks at
    the whole batch of a step; off while each evaluates batches of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = launched()
        self.together = True
        if device.type == "cuda":  # of this process alone: see choose_device. Not run on GPUs yet
            torch.cuda.set_device(device)
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        try:
            dist.init_process_group(backend, timeout=_PREPARING)
        except ValueError as error:  # an environment variable is missing or wrong
            raise InputError(f"{error}: start the processes with torchrun") from None
        except RuntimeError as error:
            line = str(error).splitlines()[0]
            raise RunError(
                f"process {self.rank} of {self.count} did not meet the others at {where} ({line})"
            ) from None
        self._working: dist.ProcessGroup | None = dist.new_group(timeout=_WORKING)
        self._patient: dist.ProcessGroup | None = dist.new_group(timeout=_READING, backend="gloo")
        self._store = dist.distributed_c10d._get_default_store()

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This process's part of the images start..stop of an epoch's order: as equal as can be."""
        size = stop - start
        return start + size * self.rank // self.count, start + size * (self.rank + 1) // self.count

    def sum(self, tensor: Tensor) -> None:
        """Put the sum over all processes in its place; the same bits in each of them."""
        if tensor.device.type == "cpu" and 8 < tensor.numel() <= _SMALL // self.count:
            parts = [torch.empty_like(tensor) for _ in range(self.count)]
            self._send(lambda: dist.all_gather(parts, tensor, group=self._working))
            tensor.copy_(functools.reduce(torch.add, parts))
        else:
            self._send(lambda: dist.all_reduce(tensor, group=self._working))

    def sum_gradients(self, leaves: Iterable[nn.Parameter]) -> None:
        """Sum gradients in one buffer a type; whoever has none counts as 0."""
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for leaf in leaves:
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            by_type.setdefault(leaf.dtype, []).append(leaf)
        for alike in by_type.values():
            gradients = [leaf.grad for leaf in alike if leaf.grad is not None]
            flat = torch.cat([each.reshape(-1) for each in gradients])
            self.sum(flat)
            _put_back(flat, gradients)

    def sums(self, *values: float) -> list[float]:
        """Sums of numbers, in double precision."""
        tensor = torch.tensor(values, dtype=torch.float64)
        self.sum(tensor)
        return [float(each) for each in tensor]

    def moments(self, mean: Tensor, var: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and biased variance (C,) of n values here -> those of all processes, and their
        number. In double precision, where a mean far from zero cancels nothing."""
        here = mean.double()
        square = var.double() + here * here
        sent = torch.cat([here * n, square * n, here.new_full((1,), n)])
        self.sum(sent)
        total = sent[-1]
        whole, square = (sent[:-1] / total).chunk(2)
        spread = (square - whole * whole).clamp_(min=0)
        return whole.to(mean.dtype), spread.to(var.dtype), total.to(mean.dtype)

    def average_statistics(self, model: nn.Module) -> None:
        """Running means and variances become their means over the processes."""
        buffers = [
            buffer
            for layer in model.modules()
            if has_statistics(layer)
            for buffer in layer._buffers.values()
            if buffer is not None and buffer.is_floating_point()
        ]
        # In double precision, so that what is equal everywhere stays what it is, to the bit.
        if not buffers:
            return
        flat = torch.cat([each.double().flatten() for each in buffers])
        self.sum(flat)
        _put_back(flat / self.count, buffers)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """BatchNorm looks at this process's batch only."""
        self.together = False
        try:
            yield
        finally:
            self.together = True

    def from_first(self, value: Any) -> Any:
        """What the first process gives: a JSON value. Waits for all of them."""
        return json.loads(self._broadcast(json.dumps(value).encode()))

    def once(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, a JSON value; the first process does it and the others wait, however
        long it takes, unless the first one ends."""
        value = work() if self.rank == 0 else None
        return json.loads(self._broadcast(json.dumps(value).encode(), self._patient))

    def tensors_from_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the first process gives, on the CPU."""
        return safetensors.torch.load(self._broadcast(safetensors.torch.save(dict(tensors))))

    def wait(self) -> None:
        """Until all have come here."""
        self._send(lambda: dist.all_reduce(torch.zeros(1)))

    def _broadcast(self, data: bytes, group: "dist.ProcessGroup | None" = None) -> bytes:
        size = torch.tensor([len(data)])
        self._send(lambda: dist.broadcast(size, 0, group))
        content = torch.zeros(int(size), dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self._send(lambda: dist.broadcast(content, 0, group))
        return content.numpy().tobytes()

    def _send(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:
            raise self.lost(error) from None

    def lost(self, error: BaseException | None = None) -> GammabetaError:
        """The error to raise when the others no longer answer: which has gone, or what it said."""
        _ignore_termination()
        self.say_end({})
        self.close()  # so that none waits for us, and all that are left come here
        ends = self.ends(until_said=True)
        said = {rank: end for rank, end in ends.items() if end}
        again = "the same command again goes on from the last whole epoch"
        found: GammabetaError
        if said:
            rank = min(said)
            kind = InputError if said[rank]["kind"] == "input" else RunError
            found = kind(f"process {rank} of {self.count}: {said[rank]['text']}")
        elif len(ends) < self.count:
            gone = ", ".join(str(rank) for rank in range(self.count) if rank not in ends)
            found = RunError(
                f"process {gone} of {self.count} has gone or does not answer (killed, out of "
                f"memory, or its machine is away): {again}"
            )
        else:
            line = f" ({str(error).splitlines()[0]})" if error is not None else ""
            found = RunError(f"the {self.count} processes were stopped{line}: {again}")
        found.speaks = self.rank == min(ends)
        return found

    def say_end(self, why: dict[str, str]) -> None:
        """Tell the others that this process ends, and why if it is the one that failed."""
        with contextlib.suppress(RuntimeError):  # the store may have gone with the first process
            if not self._store.check([f"end/{self.rank}"]):
                self._store.set(f"end/{self.rank}", json.dumps(why))

    def ends(self, *, until_said: bool = False) -> dict[int, dict[str, str]]:
        """Who says within some seconds that it ends: rank -> why, {} if because of others.
        until_said: a reason is enough, from whomever."""
        found: dict[int, dict[str, str]] = {self.rank: {}}
        until = time.monotonic() + _ENDING
        while len(found) < self.count and time.monotonic() < until:
            try:
                for rank in range(self.count):
                    if rank not in found and self._store.check([f"end/{rank}"]):
                        found[rank] = json.loads(self._store.get(f"end/{rank}"))
            except RuntimeError:  # the store was the first process's, and went with it
                return {rank: found.get(rank, {}) for rank in range(1, self.count)}
            if until_said and any(found.values()):
                break
            time.sleep(0.05)
        return found

    def leave(self) -> None:
        """Part, all together."""
        self.wait()
        self.close()

    def close(self) -> None:
        """End the connections: whoever waits for this process notices."""
        self._working = self._patient = None  # they close with the last that holds them
        if dist.is_initialized():
            with contextlib.suppress(Exception):  # what is broken already
                dist.destroy_process_group()


def _put_back(flat: Tensor, into: Iterable[Tensor]) -> None:
    """The parts of a flat tensor into the tensors that it was made of."""
    start = 0
    for tensor in into:
        tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()


class _Terminated(KeyboardInterrupt):
    """SIGTERM, by which torchrun ends the others when one has ended."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _ignore_termination() -> None:
    """torchrun is about to end this process, which is ending, and still has to say why."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the others, and part from them so that they notice, whatever happens."""
    before = signal.signal(signal.SIGTERM, _terminate) if _in_main_thread() else None
    try:
        yield from _met(device)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _met(device: torch.device) -> Iterator[Processes]:
    processes = Processes(device)
    try:
        yield processes
        processes.leave()
    except _Terminated:
        raise processes.lost() from None
    except BaseException as error:
        _ignore_termination()
        processes.say_end(_why(error))
        processes.close()
        if processes.rank == 0:  # the store may live in this process: the others are to read it
            processes.ends()
        raise


def _why(error: BaseException) -> dict[str, str]:
    """What the others are told."""
    if not isinstance(error, Exception):  # Ctrl-C, which all of them get
        return {}
    named = isinstance(error, GammabetaError)
    text = str(error) if named else f"{type(error).__name__}: {error}"
    return {"kind": "input" if isinstance(error, InputError) else "run", "text": text}
