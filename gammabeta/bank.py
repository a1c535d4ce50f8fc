"""Many tasks on one backbone: switch between them in place, or mix them in one batch.

A task is a delta. `activate` copies one into the network's own tensors, so that a compiled network
stays compiled. `forward` gives every sample of a batch the gamma, beta, running statistics (and
head) of its own task: vmap runs the network as if on one sample, so frozen layers see the whole
batch in one pass, and whatever trained is gathered per sample.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import (
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_map,
    tree_map_only,
)

from gammabeta import sparse
from gammabeta.bank_table import Table
from gammabeta.delta_check import check_delta, current_tensors, entry_index
from gammabeta.delta_file import Delta, read_delta
from gammabeta.errors import InputError, suggest
from gammabeta.statistics import hold_policy, policies
from gammabeta.wrappers import named_modules, plain, torch_names


class Bank:
    """Deltas of one network, which stays the only copy of what did not train.

    Move the network to its device and precision first. Its values when a task is added are the
    base: what a task did not train, and `activate(None)`, are as they were then. The tensors that
    tasks change are the bank's: train a task elsewhere. Not for several threads: `activate` writes
    into the network, and `forward` exchanges its tensors and its mode while it runs.

    The policy for running statistics goes with the task. It matters in training mode only; a
    compiled network follows it there if it was compiled after the bank was made. Raises InputError
    for a network whose policy is "batch".
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = plain(module)
        self._check_policy()
        self._policies = policies(self.module)  # the base's
        for layer, policy in self._policies.items():
            hold_policy(layer, policy)
        # the layer, and the place in it, of every tensor that some task changes
        self._places: dict[str, tuple[nn.Module, dict[str, Any], str]] = {}
        self._names = torch_names(self.module)
        self._statistics: dict[str, str] = {}  # task -> policy
        self._base: dict[str, Tensor] = {}  # of every tensor that some task changes
        self._tasks: dict[str, dict[str, Tensor]] = {}
        self._sparse: dict[str, dict[str, Tensor]] = {}  # task -> name -> index (C, K)
        self._table: Table | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order in which they were added."""
        return tuple(self._tasks)

    @property
    def nbytes(self) -> int:
        """Bytes held beside the network: the tasks' values, and the base of what they change."""
        held = [value for values in self._tasks.values() for value in values.values()]
        held += [index for indices in self._sparse.values() for index in indices.values()]
        stores = [value.untyped_storage() for value in (*held, *self._base.values())]
        return sum({store.data_ptr(): store.nbytes() for store in stores}.values())

    def add(self, task: str, delta: str | Path | Delta) -> None:
        """Add a task: a delta, or the file of one. Raises InputError, and adds nothing, where
        `load_delta` would: another architecture, other shapes, other frozen values, damage."""
        if not task or not isinstance(task, str):
            raise InputError(f"{task!r} cannot name a task: write a word, for example 'cats'")
        if task in self._tasks:
            raise InputError(f"the bank has a task '{task}' already: remove it, or name another")
        found = delta if isinstance(delta, Delta) else read_delta(delta)
        if found.statistics == "batch":
            raise InputError(
                f"'{task}' normalises by the batch, so what else is in one changes its outputs: a "
                "bank takes deltas with running statistics (track or frozen)"
            )
        try:
            check_delta(self.module, found, base=self._base)
        except InputError as error:
            raise InputError(f"task '{task}': {error}") from None
        current = current_tensors(self.module)
        layers = dict(named_modules(self.module))
        values = {}
        for name, value in (found.values | found.buffers).items():
            if name not in self._base:
                self._base[name] = current[name].clone()
                owner, _, last = name.rpartition(".")
                layer = layers[owner]
                kept = layer._parameters if last in layer._parameters else layer._buffers
                self._places[name] = layer, kept, last
            values[name] = value.to(self._base[name])
        self._tasks[task] = values
        self._statistics[task] = found.statistics
        self._sparse[task] = {
            name: entry_index(self.module, name, found.per_channel, found.seed)
            for name in sorted(found.sparse)
        }
        self._table = None

    def remove(self, task: str) -> None:
        """Forget a task. The network keeps what it has: activate another."""
        self._known(task)
        del self._tasks[task], self._sparse[task], self._statistics[task]
        if self._table is not None:  # its rows are in one piece of memory, which ends with them
            self._tasks = {
                task: {name: value.clone() for name, value in values.items()}
                for task, values in self._tasks.items()
            }
        self._table = None

    @torch.no_grad()
    def activate(self, task: str | None) -> nn.Module:
        """Make the network that of a task, or the base again for None. In place: no tensor is
        replaced, so a compiled network need not be compiled again. Returns the network."""
        values = self._base
        if task is not None:
            self._known(task)
            values = self._base | self._tasks[task]
            for name, index in self._sparse[task].items():
                flat, entries = self._base[name].flatten(), values[name].flatten()
                full = flat.scatter(0, index.flatten(), entries)
                values[name] = full.view_as(self._base[name])
        places = [self._places[name] for name in values]
        if places:  # one call for hundreds of small tensors
            targets = [kept[last] for _, kept, last in places]
            torch._foreach_copy_(targets, list(values.values()))
        for layer, _, last in places:
            if last == "weight" and "_gammabeta_sparse" in layer.__dict__:
                layer.__dict__["_gammabeta_sparse"].read()
        for layer, policy in self._policies.items():
            hold_policy(layer, policy if task is None else self._statistics[task])
        return self.module

    def forward(self, *inputs: Any, tasks: Sequence[str], **keywords: Any) -> Any:
        """The network's outputs in evaluation mode, the n-th sample under the n-th of `tasks`.

        inputs, keywords: the network's own; every tensor among them has the N samples in its first
        dimension, and so has every output. Equal up to rounding to running the same batch under
        each task, which the first batch of each shape is held against with two of its samples: a
        network that mixes samples, or puts something else first, is refused. What trained is held
        once a sample while it runs: kilobytes each for gamma and beta, much more for subsets of
        whole convolutions. Which task is active plays no part, and stays.
        """
        self._check_forward(inputs, keywords, tasks)
        if self._table is None:
            self._table = Table(self._base, self._tasks, self._sparse)
            self._tasks = self._table.views  # the same values; the table is their only copy
        own = self._table.gather(list(tasks))
        shared = {name: value for name, value in self._base.items() if name not in own}

        def one(own: dict[str, Tensor], *sample: Any) -> Any:
            """Of one sample (C, H, W); the network gets a batch of one (1, C, H, W)."""
            batch = tree_map_only(Tensor, lambda value: value[None], sample)
            positional, named = batch[:-1], batch[-1]
            out = self._run(shared | own, positional, named)
            _check_outputs(out)
            return tree_map_only(Tensor, lambda value: value[0], out)

        arguments = (own, *inputs, keywords)
        over = tree_map(lambda each: 0 if isinstance(each, Tensor) else None, arguments)
        with _evaluating(self.module), self._without_entries():
            try:
                out = torch.vmap(one, in_dims=over)(*arguments)
                self._check_mixed(out, (inputs, keywords), tasks[0])
                return out
            except (RuntimeError, ValueError) as error:
                if not (reason := _reason(error)):
                    raise
                raise InputError(
                    f"this network cannot mix tasks in one pass ({reason}): write activate and run "
                    "each task alone"
                ) from error

    def _run(self, values: dict[str, Tensor], inputs: Any, keywords: Any) -> Any:
        """The network's outputs with these values in place of its own."""
        tensors = {self._names[name]: value for name, value in values.items()}
        return functional_call(self.module, tensors, inputs, keywords)

    @torch.no_grad()
    def _check_mixed(self, out: Any, given: tuple[Any, Any], task: str) -> None:
        """Hold the first sample's outputs, under `task`, against an ordinary batch of two: the
        first sample and the last. Once for each shape, unless the two are the same."""
        leaves, structure = tree_flatten(given)
        kinds = [
            (each.shape[1:], each.dtype) if isinstance(each, Tensor) else repr(each)
            for each in leaves
        ]
        kind, tensors = (
            f"{structure} {kinds}",
            [each for each in leaves if isinstance(each, Tensor)],
        )
        assert self._table is not None
        if not tensors or len(tensors[0]) < 2 or kind in self._table.checked:
            return  # a sample alone is an ordinary batch already
        inputs, keywords = tree_map_only(Tensor, lambda each: each[[0, -1]], given)
        expected = self._run(self._base | self._tasks[task], inputs, keywords)
        near = _far_above_rounding([*tensors, *self.module.parameters(), *tree_flatten(out)[0]])
        ours = dict(tree_flatten_with_path(out)[0])
        for path, value in tree_flatten_with_path(expected)[0]:
            if isinstance(value, Tensor):
                _check_equal(f"output{keystr(path)}", ours.get(path), value, near)
        if any(not torch.equal(each[0], each[-1]) for each in tensors):
            self._table.checked.add(kind)

    @contextlib.contextmanager
    def _without_entries(self) -> Iterator[None]:
        """Entries of random:K that are attached play no part: their weights are the tasks'."""
        found = sparse.attached(self.module)
        theirs = [entries for name, entries in found.items() if name in self._base]
        try:
            for entries in theirs:
                entries.suspended = True
            yield
        finally:
            for entries in theirs:
                entries.suspended = False

    def _check_forward(self, inputs: Any, keywords: Any, tasks: Sequence[str]) -> None:
        if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not tasks:
            raise InputError("tasks is a list with a task's name for each sample")
        self._check_policy()
        for task in tasks:
            self._known(task)
        for task in dict.fromkeys(tasks):
            for name in self._sparse[task]:
                raise InputError(
                    f"task '{task}' trained random entries of '{name}', which a mixed batch would "
                    "copy for each sample: write activate and run its samples alone"
                )
        found: list[int | None] = []
        tree_map_only(
            Tensor, lambda each: found.append(len(each) if each.dim() else None), (inputs, keywords)
        )
        for count in found:
            if count is None:
                raise InputError("a tensor without dimensions has no samples: give a number")
            if count != len(tasks):
                raise InputError(f"{len(tasks)} tasks for {count} samples: name one for each")
        for name, layer in self.module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is None:
                raise InputError(
                    f"'{name}' has no running statistics and normalises by the batch: write "
                    "activate and run each task alone"
                )

    def _check_policy(self) -> None:
        if "batch" in policies(self.module).values():
            raise InputError(
                "this network normalises by the batch (policy 'batch'), so what else is in one "
                "changes its outputs: write select(module, 'bn').apply(module) first, or another "
                "policy than batch"
            )

    def _known(self, task: str) -> None:
        if task is None:
            raise InputError("None is no task of a batch: write bank.activate(None) for the base")
        if not isinstance(task, str) or task not in self._tasks:
            known = suggest(str(task), self._tasks) if self._tasks else "it has none"
            raise InputError(f"the bank has no task '{task}': {known}")


def _check_outputs(out: Any) -> None:
    """Refuse outputs of a batch of one whose first dimension is not that one sample."""
    for path, value in tree_flatten_with_path(out)[0]:
        if isinstance(value, Tensor) and (value.dim() == 0 or len(value) != 1):
            shape = "no dimension" if value.dim() == 0 else f"shape {tuple(value.shape)}"
            raise InputError(
                f"this network's output{keystr(path)} has {shape} for a batch of one, not the "
                "samples in its first dimension (squeeze() takes it away, where squeeze(-1) would "
                "not; a loss has none: leave labels out): change that, or write activate and run "
                "each task alone"
            )


def _far_above_rounding(values: Iterable[Any]) -> float:
    """A relative difference that rounding does not make, in the coarsest type at work."""
    kinds = {each.dtype for each in values if isinstance(each, Tensor)}
    devices = {each.device.type for each in values if isinstance(each, Tensor)}
    kinds |= {torch.get_autocast_dtype(kind) for kind in devices if torch.is_autocast_enabled(kind)}
    coarsest = max((torch.finfo(kind).eps for kind in kinds if kind.is_floating_point), default=0.0)
    return max(float(coarsest**0.5), 0.0 if devices == {"cpu"} else 0.03)  # TF32 on a GPU


def _check_equal(name: str, ours: Tensor | None, expected: Tensor, near: float) -> None:
    """Refuse a mixed pass whose first sample is not that of an ordinary batch of two."""
    is_same = (
        ours is not None and ours.shape[1:] == expected.shape[1:] and expected.shape[:1] == (2,)
    )
    if ours is not None and is_same:
        one, other = ours[0], expected[0]
        if other.is_floating_point():
            finite = other[other.isfinite()].abs()
            far = near * float(finite.max()) if finite.numel() else 0.0
            is_same = torch.allclose(one.double(), other.double(), 0, far, equal_nan=True)
        else:
            is_same = other.is_complex() or torch.equal(one, other)
    if not is_same:
        raise InputError(
            f"this network's {name} of one sample depends on what else is in the batch, or does "
            "not have the samples in its first dimension, so a mixed batch would be wrong: write "
            "activate and run each task alone"
        )


def _reason(error: Exception) -> str:
    """Why vmap cannot run a network, in a line; empty for an error that is not vmap's."""
    text = " ".join(str(error).split())
    if "vmap" not in text and "Batching rule not implemented" not in text:
        return ""
    return text.partition(". ")[0].rstrip(".")[:160]


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each layer's own mode again afterwards, also after an error."""
    modes = [(layer, layer.training) for layer in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # vmap would run it sample by sample
    # ... and so it would the CPU's fused attention
    on_cpu = all(tensor.device.type == "cpu" for tensor in module.parameters())
    attention = sdpa_kernel(SDPBackend.MATH) if on_cpu else contextlib.nullcontext()
    # a part that is compiled runs as it was written: what it compiled for is another pass
    has_compiled = any("_orig_mod" in layer._modules for layer, _ in modes)
    stance = torch.compiler.set_stance("force_eager") if has_compiled else contextlib.nullcontext()
    try:
        module.eval()
        with attention, stance:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for layer, mode in modes:
            layer.training = mode
