"""Bytes: what is kept for the backward pass, and the peak of a step."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from gammabeta.bench.case import OneBatch
from gammabeta.engine.fused import FusedEngine
from gammabeta.fused.program import Program


class Storages:
    """Distinct memory: views of one tensor count once."""

    def __init__(self) -> None:
        self.found: dict[int, int] = {}

    def add(self, *tensors: Tensor | None) -> None:
        for tensor in tensors:
            if tensor is not None:
                storage = tensor.untyped_storage()
                self.found[storage.data_ptr()] = storage.nbytes()

    def bytes(self) -> int:
        return sum(self.found.values())


def saved_by_autograd(step: Callable[[], object], model: nn.Module, images: Tensor) -> int:
    """What autograd keeps during `step`: parameters, buffers and the batch are no activations, nor
    are copies of a weight in another type, which its shape tells."""
    own, saved = Storages(), Storages()
    own.add(*model.parameters(), *model.buffers(), images)
    shapes = {tuple(each.shape) for each in model.parameters() if each.dim() > 1}
    shapes |= {shape[::-1] for shape in shapes if len(shape) == 2}

    def pack(tensor: Tensor) -> Tensor:
        known = tensor.untyped_storage().data_ptr() in own.found
        if not known and tuple(tensor.shape) not in shapes and tensor.shape != images.shape:
            saved.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return saved.bytes()


def kept_by_program(engine: FusedEngine, batches: OneBatch) -> int:
    """What a fused program holds when its backward pass begins."""
    program = engine.team.program
    images = batches.images(0, 0).permute(0, 2, 3, 1)[None].to(program.dtype)
    with _looking() as kept, torch.no_grad():
        program.step(images, batches.labels(0, 0)[None])
    return kept.bytes()


@contextlib.contextmanager
def _looking() -> Iterator[Storages]:
    """Counts, whenever a program's backward pass begins, all activations it can still reach."""
    kept, backward = Storages(), Program.backward

    def look(self: Program, dfeatures: Tensor) -> None:
        for each in self.kept:
            kept.add(each.z1, each.z2, each.z_shortcut, each.positive)
        for join in (*(each.join for each in self.kept), self.last):
            kept.add(join.z, join.skip, join.z_shortcut)
        kept.add(self.positive)
        backward(self, dfeatures)

    Program.backward = look  # type: ignore[method-assign]
    try:
        yield kept
    finally:
        Program.backward = backward  # type: ignore[method-assign]


def resident_bytes(which: str) -> int | None:
    """Of this process: "VmRSS", now, or "VmHWM", the most since `forget_peak`. None where the
    system does not say."""
    try:
        found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_allocated(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that `call` holds at once on the device, beside what was there before: torch's
    own account of every tensor, on a CPU from its profiler, so the same at each call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        call()
    held = peak = 0
    events = profile.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    for _, change in sorted(changes, key=lambda each: each[0]):
        held += change
        peak = max(peak, held)
    return peak


def peak_resident(make: Callable[[], Callable[[], object]], steps: int = 3) -> int | None:
    """The most resident memory during steps after a first one, less what there was before `make`.
    For a process that does nothing else: what was once freed may still be resident."""
    before = resident_bytes("VmRSS")
    step = make()
    step()
    forget_peak()
    for _ in range(steps):
        step()
    peak = resident_bytes("VmHWM")
    return None if before is None or peak is None else peak - before
