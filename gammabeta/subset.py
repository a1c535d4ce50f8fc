"""Which parameters of a network train: a subset in words becomes a verdict for every tensor.

`select` is pure: it looks at a module and returns a `Subset`. `Subset.apply` sets requires_grad in
place (and attaches sparse entries for ``random:K``); nothing is wrapped and nothing renamed. The
language is that of language.py; the roles that its parts select are those of roles.py.
"""

import itertools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from gammabeta import language, sparse
from gammabeta.errors import InputError
from gammabeta.groups import by_role
from gammabeta.roles import (
    Role,
    find_output,
    has_statistics,
    is_frozen_norm,
    left_alone,
    linear_layers,
    roles,
)
from gammabeta.statistics import check_policy, set_statistics_policy
from gammabeta.wrappers import named_buffers, named_modules, named_parameters, submodule


@dataclass(frozen=True)
class Verdict:
    """What happens to one tensor. `trained` of its `size` entries train.

    verdict: "trained", "sparse" (some entries train), "frozen", or "drifts" (running statistics
    that follow the data without being trained).
    """

    name: str
    role: str
    shape: tuple[int, ...]
    size: int
    trained: int
    verdict: str


@dataclass(frozen=True)
class Subset:
    """The verdict on every tensor of one network; made by `select`."""

    text: str  # canonical
    table: tuple[Verdict, ...]
    statistics: str
    per_channel: int
    seed: int
    # Layers of which only all and name:REGEX train anything: module name -> why. See roles.py.
    left_alone: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """A line for each role and verdict, and one for each layer left alone."""
        sums: dict[tuple[str, str], list[int]] = {}
        for row in self.table:
            both = sums.setdefault((row.role, row.verdict), [0, 0])
            both[0], both[1] = both[0] + row.trained, both[1] + row.size
        lines = [f"{self.text}: {self.count:,} of {self.total:,} parameters train"]
        head = f" ({self._head()})"
        lines += [
            f"  {role:<10} {verdict:<7} {trained:,} of {size:,}{head if role == 'output' else ''}"
            for (role, verdict), (trained, size) in sums.items()
        ]
        lines += [f"  left alone: {name} ({why})" for name, why in self.left_alone.items()]
        return "\n".join(lines)

    def _head(self) -> str:
        """The classifier's name."""
        names = [row.name.split(".")[:-1] for row in self.table if row.role == "output"]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))
        return ".".join(parts[0] for parts in shared) or "the network itself"

    @property
    def count(self) -> int:
        """Number of values that train."""
        return sum(row.trained for row in self.table)

    @property
    def total(self) -> int:
        """Number of parameters of the network (running statistics are no parameters)."""
        return sum(row.size for row in self.table if row.role != "statistics")

    @property
    def trained(self) -> dict[str, Verdict]:
        """The rows of the tensors that train, wholly or in part, by name."""
        return {row.name: row for row in self.table if row.trained}

    def apply(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Set requires_grad on every parameter of `module`, in place, and enforce the statistics
        policy. Returns the trained leaves by parameter name: give their values to an optimiser.
        The leaf of a sparse tensor is (C, K): K entries of each of its C channels. Move the module
        to its device first, and clip or zero the gradients of the returned leaves, not those of
        `module.parameters()`, which a sparse leaf is not among."""
        for entries in sparse.attached(module).values():
            entries.detach()
        parameters = named_parameters(module)
        rows = {row.name: row for row in self.table if row.role != "statistics"}
        if parameters.keys() != rows.keys():
            name = min(parameters.keys() ^ rows.keys())
            raise InputError(f"this subset was selected on another network ('{name}' differs)")
        leaves: dict[str, nn.Parameter] = {}
        for name, parameter in parameters.items():
            row = rows[name]
            parameter.requires_grad_(row.verdict == "trained")
            parameter.grad = None
            if row.verdict == "trained":
                leaves[name] = parameter
            elif row.verdict == "sparse":
                layer = _owner(module, name)
                index = sparse.choose_entries(layer, name, self.per_channel, self.seed)
                leaves[name] = sparse.SparseEntries(layer, index).leaf
        set_statistics_policy(module, self.statistics)
        return leaves

    def parameter_groups(
        self,
        module: nn.Module,
        *,
        lr: float | Mapping[str, float] | None = None,
        decay: float | Mapping[str, float] | None = None,
    ) -> list[dict[str, Any]]:
        """The leaves of an applied subset as groups for any optimiser of torch: one for each role
        that trains, with its name under "role".

        lr, decay: one number, or numbers by role, as in lr={"output": 0.01}; where nothing is
        given, the optimiser's own hold. Raises InputError for a role of which nothing trains.
        """
        leaves = self._leaves(module)
        if not all(leaf.requires_grad for leaf in leaves.values()):
            raise InputError("this subset is not applied to the module: call apply first")
        roles_of = {name: row.role for name, row in self.trained.items()}
        return by_role(self.text, leaves, roles_of, lr, decay)

    def extract(self, module: nn.Module) -> dict[str, Tensor]:
        """Copies of the trained values of an applied subset, by parameter name."""
        return {name: leaf.detach().clone() for name, leaf in self._leaves(module).items()}

    @torch.no_grad()
    def restore(self, module: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Put values that `extract` returned into a module to which this subset is applied."""
        leaves = self._leaves(module)
        if leaves.keys() != values.keys():
            name = min(leaves.keys() ^ values.keys())
            raise InputError(f"these values are of another subset: '{name}' is in only one of them")
        for name, leaf in leaves.items():
            if leaf.shape != values[name].shape:
                shapes = f"{tuple(values[name].shape)}, not {tuple(leaf.shape)}"
                raise InputError(
                    f"these values are of another network: '{name}' has shape {shapes}"
                )
            leaf.copy_(values[name])

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """All that training changed in a module: "trained/NAME" and "statistics/NAME", copied."""
        trained = {f"trained/{name}": value for name, value in self.extract(module).items()}
        drifted = {f"statistics/{name}": value for name, value in statistics(module).items()}
        return trained | drifted

    @torch.no_grad()
    def load_state(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, for a module to which this subset is applied."""
        self.restore(module, under(state, "trained/"))
        buffers = named_buffers(module)
        for name, value in under(state, "statistics/").items():
            buffers[name].copy_(value)

    def _leaves(self, module: nn.Module) -> dict[str, nn.Parameter]:
        entries = sparse.attached(module)
        parameters = named_parameters(module)
        leaves = {}
        for row in self.trained.values():
            if row.verdict == "sparse" and row.name not in entries:
                raise InputError("this subset is not applied to the module: call apply first")
            leaves[row.name] = (
                entries[row.name].leaf if row.verdict == "sparse" else parameters[row.name]
            )
        return leaves


def select(
    module: nn.Module,
    text: str,
    *,
    seed: int = 0,
    output: str | None = None,
    statistics: str = "track",
) -> Subset:
    """The subset `text` (see language.py) of any network. Changes nothing.

    seed: of the entries of ``random:K``. output: name of the classifier, where its place does not
    tell. statistics: policy for running statistics (see statistics.py). Raises InputError for a
    part that selects nothing, and says what the network has.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"select takes a network, a torch.nn.Module, not {module!r}: "
            "make one with gammabeta.create_model('cifar_resnet_14')"
        )
    if not isinstance(text, str):
        raise InputError(f"a subset is a text such as 'bn', not {text!r}")
    expression = language.parse(text)
    check_policy(statistics)
    tensors = roles(module, output)
    if expression.per_channel:
        _check_sparse(module, expression.per_channel)
    chosen: set[str] = set()
    for part in expression.plus:
        chosen |= _part(module, tensors, part, output)
    removed: set[str] = set()
    for part in expression.minus:
        removed |= _part(module, tensors, part, output)
    table, capped = [], []
    for tensor in tensors:
        trained = tensor.size if tensor.name in chosen - removed else 0
        verdict = "trained" if trained else "frozen"
        if expression.per_channel and not trained and tensor.name not in removed:
            layer = _convolution(module, tensor.name)
            if layer is not None:
                trained = sparse.entry_count(layer, expression.per_channel)
                verdict = "trained" if trained == tensor.size else "sparse"
                if expression.per_channel > sparse.filter_size(layer):
                    capped.append(f"{tensor.name} ({sparse.filter_size(layer)})")
        row = Verdict(tensor.name, tensor.role, tensor.shape, tensor.size, trained, verdict)
        table.append(row)
    if capped:
        more = f" and {len(capped) - 3} others" if len(capped) > 3 else ""
        warnings.warn(
            f"random:{expression.per_channel} is more than a filter has and trains all of it in "
            f"{', '.join(capped[:3])}{more}",
            stacklevel=2,
        )
    if not any(row.trained for row in table) and expression != language.parse("none"):
        raise InputError(f"'{text}' selects nothing here; {_what_there_is(tensors)}")
    table += _statistics_rows(module, statistics)
    passed_over = left_alone(module, {row.name for row in table if row.trained})
    return Subset(
        str(expression), tuple(table), statistics, expression.per_channel, seed, passed_over
    )


def _part(module: nn.Module, tensors: list[Role], part: str, output: str | None) -> set[str]:
    """Names of the tensors that one part selects."""
    if part.startswith("name:"):
        pattern = re.compile(part.removeprefix("name:"))
        found = {tensor.name for tensor in tensors if pattern.fullmatch(tensor.name)}
    elif part == "output":
        found = {tensor.name for tensor in tensors if tensor.role == "output"}
        classifier = find_output(module, output)
        if classifier is None:
            raise InputError(
                "cannot tell which module is the classifier: name it, as in "
                f"select(module, 'output', output='head'), or write name:REGEX; "
                f"{linear_layers(module)}"
            )
        _check_own(module, classifier, tensors)
    elif part == "bias":  # a classifier's bias is one too
        found = {tensor.name for tensor in tensors if _is_bias(tensor)}
    else:
        wanted = {"all": None, "bn": ("gamma", "beta")}.get(part, (part,))
        found = {tensor.name for tensor in tensors if wanted is None or tensor.role in wanted}
    if not found:
        raise InputError(
            f"'{part}' selects nothing here; {_what_there_is(tensors)}{_frozen_norms(module)}"
        )
    return found


def _check_own(module: nn.Module, classifier: str, tensors: list[Role]) -> None:
    """Refuse a classifier that shares a parameter with the rest: with it the rest would train."""
    names = {tensor.name: tensor.role for tensor in tensors}
    first = {id(parameter): name for name, parameter in named_parameters(module).items()}
    for last, parameter in named_parameters(submodule(module, classifier)).items():
        name = first[id(parameter)]
        if names[name] != "output":
            raise InputError(
                f"the classifier '{classifier}' shares its {last} with '{name}': "
                f"to train both write name:{re.escape(name)}, or untie them first"
            )


def _frozen_norms(module: nn.Module) -> str:
    frozen = [name for name, child in named_modules(module) if is_frozen_norm(child)]
    if not frozen:
        return ""
    return (
        f"; {len(frozen)} normalisation layers such as {frozen[0]} keep gamma and beta as buffers, "
        "which cannot train: put torch's BatchNorm in their place"
    )


def _is_bias(tensor: Role) -> bool:
    last = tensor.name.rsplit(".", 1)[-1]
    return tensor.role == "bias" or (tensor.role == "output" and last == "bias")


def _what_there_is(tensors: list[Role]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.role] = sizes.get(tensor.role, 0) + tensor.size
    listed = ", ".join(f"{role} ({size:,})" for role, size in sorted(sizes.items()))
    names = ", ".join(tensor.name for tensor in tensors[:3])
    return f"the network has: {listed or 'no parameters'}; names such as {names}"


def _owner(module: nn.Module, name: str) -> _ConvNd:
    layer = submodule(module, name.rpartition(".")[0])
    assert isinstance(layer, _ConvNd)
    return layer


def _convolution(module: nn.Module, name: str) -> _ConvNd | None:
    """The convolution whose weight is called `name`, if it is one."""
    owner, _, last = name.rpartition(".")
    layer = submodule(module, owner)
    return layer if last == "weight" and isinstance(layer, _ConvNd) else None


def _check_sparse(module: nn.Module, per_channel: int) -> None:
    """`random:K` needs every convolution to own its weight, plainly and alone."""
    owners: dict[int, str] = {}
    for name, layer in named_modules(module):
        if not isinstance(layer, _ConvNd):
            continue
        weight = layer._parameters.get("weight")
        if weight is None:
            raise InputError(
                f"random:{per_channel} cannot choose entries of '{name}': its weight is computed "
                "(a parametrisation or weight norm); remove that first"
            )
        if id(weight) in owners:
            other = owners[id(weight)]
            raise InputError(
                f"random:{per_channel} cannot choose entries of a weight that '{other}' and "
                f"'{name}' share: write a part such as name:REGEX instead"
            )
        owners[id(weight)] = name


def _statistics_rows(module: nn.Module, policy: str) -> list[Verdict]:
    verdict = "drifts" if policy == "track" else "frozen"
    rows = []
    seen: set[int] = set()  # layers may share a buffer: it counts once, as a shared parameter does
    for module_name, layer in named_modules(module):
        if not has_statistics(layer):
            continue
        for name, buffer in layer._buffers.items():
            if buffer is not None and id(buffer) not in seen:
                seen.add(id(buffer))
                full = f"{module_name}.{name}" if module_name else name
                shape = tuple(buffer.shape)
                rows.append(Verdict(full, "statistics", shape, buffer.numel(), 0, verdict))
    return rows


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all running statistics (mean, variance, batch count) by buffer name."""
    names = [row.name for row in _statistics_rows(module, "track")]
    buffers = named_buffers(module)
    return {name: buffers[name].detach().clone() for name in names}


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose key starts with `prefix`, by the rest of the key."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
