"""RunSpec: what one run IS. Checked when made; the sha256 of its canonical JSON is its name.

Only the science is here (network, data, subset, initialisers, optimiser, schedule, seed,
precision). How it is executed (engine, device, folders) is recorded beside a run, never hashed.
A field left at None is resolved at construction, and the resolved value is what is hashed, so a
later change of a default cannot relabel an old result. Standard library only.
"""

import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from gammabeta import language
from gammabeta.errors import InputError, about, in_full, suggest
from gammabeta.names import parse_name

FORMAT = 1  # of spec.json
# Fields that came after the first runs, with the value that those had. At it a field is left out of
# the JSON, so that a run keeps its name when the spec learns something new.
_LATER: dict[str, Any] = {
    "schedule_steps": None,
    "brightness": 0.0,
    "normalisation": "imagenet",
    "test_subsample": None,
    "bias_init": "uniform",
    "image_size": 0,
    "norm_shares": 1,
    "weights": "",
    "validation": 0.0,
}

DATA_SETS = ("cifar10", "cifar100", "digits", "imagenet", "synthetic")
ROLES = ("gamma", "beta", "output", "shortcut", "conv", "linear", "bias", "other")
CHOICES: dict[str, tuple[str, ...]] = {
    "data": DATA_SETS,
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("step", "cosine", "constant", "linear_cosine", "cosine_restarts", "ramp"),
    "weight_init": ("kaiming_normal", "kaiming_uniform", "orthogonal", "binary"),
    "norm_init": ("uniform", "ones", "ones_ones", "symmetric"),
    "bias_init": ("uniform", "zeros"),
    "statistics": ("track", "frozen", "batch"),
    "precision": ("fp32", "bf16"),
    "normalisation": ("imagenet", "none"),
}
# What a field left at None becomes. Digits are not flipped: a mirrored 2 is no 2.
_BY_DATA: dict[str, dict[str, Any]] = {
    "cifar10": {"flip": True, "crop_padding": 4, "image_size": 0},
    "cifar100": {"flip": True, "crop_padding": 4, "image_size": 0},
    "digits": {"flip": False, "crop_padding": 2, "image_size": 0},
    "imagenet": {"flip": True, "crop_padding": 0, "image_size": 224},
    "synthetic": {"flip": True, "crop_padding": 4, "image_size": 0},
}
_BY_OPTIMIZER: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "betas": ()},
    "adam": {"lr": 0.001, "momentum": 0.0, "betas": (0.9, 0.999)},
    "adamw": {"lr": 0.001, "momentum": 0.0, "betas": (0.9, 0.999)},
}
_NO_DROPS: dict[str, Any] = {"drops": (), "drop_factor": 1.0}
_BY_SCHEDULE: dict[str, dict[str, Any]] = {
    "step": {"drops": (0.5, 0.75), "drop_factor": 0.1},
    "cosine": _NO_DROPS | {"schedule_steps": None},
    "constant": _NO_DROPS,
    "linear_cosine": _NO_DROPS | {"schedule_steps": None},
    "cosine_restarts": _NO_DROPS | {"schedule_steps": 1000},
    "ramp": _NO_DROPS,
}
RESOLVED_BY = {"data": _BY_DATA, "optimizer": _BY_OPTIMIZER, "schedule": _BY_SCHEDULE}


Made = typing.TypeVar("Made")
_SMALLEST = 8  # pixels that an image of imagenet can be cropped to


def _help(text: str, default: Any) -> Any:
    return field(default=default, metadata={"help": text})


def _by_name(cls: type[Made]) -> type[Made]:
    """Let the constructor of a dataclass raise an InputError where Python has a TypeError."""
    made = cls.__init__

    @functools.wraps(made)
    def checked(self: Made, *nameless: Any, **values: Any) -> None:
        if nameless:
            raise InputError(f"what is {nameless[0]!r}? name it: RunSpec(model='cifar_resnet_14')")
        made(self, **_known(values))

    cls.__init__ = checked  # type: ignore[assignment]
    return cls


@_by_name
@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training run, complete. The defaults are the paper's CIFAR-10 recipe (its appendix).

    Raises InputError, with what to write instead, for everything that is wrong on its own; what
    only the data or the network can tell (a part that selects nothing) is refused when it runs.
    """

    model: str = _help("network; gammabeta models lists them", "cifar_resnet_14")
    trainable: str = _help("which parameters train, e.g. bn, bn+output, random:2, all-bn", "bn")
    data: str = _help("data set", "cifar10")
    epochs: int = _help("passes over the training images", 160)
    batch_size: int = _help("images a step; the last, short batch of an epoch is kept", 128)
    seed: int = _help("of weights, order, augmentation and random entries", 0)
    optimizer: str = _help("what turns gradients into steps", "sgd")
    lr: float = _help("learning rate", None)
    momentum: float = _help("of sgd", None)
    nesterov: bool = _help("Nesterov momentum", False)
    betas: tuple[float, ...] = _help("of adam and adamw", None)
    weight_decay: float = _help("on every trained tensor, gamma and beta included", 1e-4)
    lr_by_role: tuple[tuple[str, float], ...] = _help("other rates, e.g. output=0.01,beta=0.2", ())
    weight_decay_by_role: tuple[tuple[str, float], ...] = _help("other decays, e.g. gamma=0", ())
    schedule: str = _help("of the learning rate", "step")
    drops: tuple[float, ...] = _help("step: when, as shares of the run, e.g. 1/2,3/4", None)
    drop_factor: float = _help("step: the rate is multiplied by this at each drop", None)
    schedule_steps: int | None = _help(
        "steps until cosine and linear_cosine have come down, or until the first restart of "
        "cosine_restarts, whose periods double",
        None,
    )
    warmup_epochs: float = _help("the rate rises linearly from 0 over these epochs", 0.0)
    label_smoothing: float = _help("in [0, 1)", 0.0)
    weight_init: str = _help("of convolutions and classifier", "kaiming_normal")
    norm_init: str = _help(
        "gamma, beta: uniform U(0,1),0; ones 1,0; ones_ones 1,1; symmetric U(-1,1),0", "uniform"
    )
    bias_init: str = _help(
        "of convolutions and classifier: uniform, torch's default; zeros, Keras'", "uniform"
    )
    statistics: str = _help("running statistics: track, frozen, or batch (never use them)", "track")
    norm_shares: int = _help(
        "parts of a batch that BatchNorm sees apart; above 1 one process each (--no-sync-bn)", 1
    )
    precision: str = _help("fp32, or bf16 (autocast; trained tensors stay fp32)", "fp32")
    flip: bool = _help("random horizontal flips", None)
    crop_padding: int = _help("random crops after padding by this many pixels", None)
    brightness: float = _help(
        "random brightness: up to this is added to pixels in [0, 1] or taken away; then clipped",
        0.0,
    )
    normalisation: str = _help(
        "of pixels: imagenet, by its mean and deviation; none, they stay in [0, 1]", "imagenet"
    )
    image_size: int = _help(
        "imagenet: random crops are resized to this many pixels; 0: images stay as they are",
        None,
    )
    subsample: int | None = _help("train on the first N images only", None)
    test_subsample: int | None = _help("test on the first N test images only", None)
    random_labels: float = _help("share of training labels replaced by random classes", 0.0)
    weights: str = _help("start from this file's tensors; the spec holds its sha256", "")
    validation: float = _help("share of the training images to test on, untrained", 0.0)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            with about(item.name):
                if value is None:
                    value = self._resolve(item.name)
                value = _typed(item.name, _TYPES[item.name], value)
            object.__setattr__(self, item.name, value)
        with about("trainable"):
            object.__setattr__(self, "trainable", str(language.parse(self.trainable)))
        with about("model"):
            object.__setattr__(self, "model", str(parse_name(self.model)))
        _check(self)

    def _resolve(self, name: str) -> Any:
        for decider, table in RESOLVED_BY.items():
            choice = getattr(self, decider)
            if choice not in table:
                _check_choice(decider, choice)
            if name in table[choice]:
                return table[choice][name]
        if name in _OPTIONAL:
            return None
        raise InputError(f"{name} needs a value")

    @property
    def id(self) -> str:
        """The run's name: the first 12 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `RunSpec.from_dict` gives an equal spec back."""
        values: dict[str, Any] = {"format": FORMAT}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _LATER and value == _LATER[item.name]:
                continue
            if item.name.endswith("_by_role"):
                value = dict(value)
            values[item.name] = list(value) if isinstance(value, tuple) else value
        return values

    def to_json(self) -> str:
        """Canonical: sorted keys, no spaces, resolved values."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def chosen(self) -> dict[str, Any]:
        """The part of `to_dict` that differs from the defaults; `from_dict` reads it back equal."""
        deciders = {name: getattr(self, name) for name in RESOLVED_BY}
        followed, default = RunSpec(**deciders).to_dict(), RunSpec().to_dict()
        return {
            name: value
            for name, value in self.to_dict().items()
            if value != (default if name in deciders else followed).get(name, _LATER.get(name))
        }

    @classmethod
    def from_dict(cls, values: Any) -> "RunSpec":
        """The inverse of `to_dict`; keys may be missing (defaults), unknown ones are refused."""
        if not isinstance(values, dict):
            raise InputError('a spec is a JSON object, for example {"model": "cifar_resnet_14"}')
        values = dict(values)
        number = values.pop("format", FORMAT)
        if type(number) is not int or number != FORMAT:
            raise InputError(
                f"this spec has format {number!r}; this gammabeta reads format {FORMAT}"
            )
        return cls(**_known(values))

    def replace(self, **changes: Any) -> "RunSpec":
        """A changed copy. Fields whose default follows from a changed one (lr from optimizer, ...)
        take their new default unless they are given too."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for decider, table in RESOLVED_BY.items():
            if decider in changes and changes[decider] != values[decider]:
                values.update(dict.fromkeys(table[values[decider]]))
        return RunSpec(**{**values, **_known(changes)})


def differing(specs: Sequence[RunSpec]) -> list[str]:
    """The fields in which specs are not all equal, in the order of RunSpec."""
    return [
        item.name
        for item in fields(RunSpec)
        if any(getattr(spec, item.name) != getattr(specs[0], item.name) for spec in specs)
    ]


def check_specs(specs: Any, function: str) -> None:
    """Raise InputError unless `specs` is a list of RunSpecs."""
    if isinstance(specs, RunSpec):
        raise InputError(f"{function} takes a list of RunSpecs: write {function}([spec])")
    if isinstance(specs, str) or not isinstance(specs, Iterable):
        raise InputError(f"{function} takes a list of RunSpecs, not {specs!r}")
    for spec in specs:
        if not isinstance(spec, RunSpec):
            raise InputError(
                f"{function} takes RunSpecs, not {type(spec).__name__}: write for example "
                "RunSpec(model='cifar_resnet_14'), or RunSpec.from_dict of a dictionary"
            )


_TYPES = typing.get_type_hints(RunSpec)
_OPTIONAL = {name for name, kind in _TYPES.items() if isinstance(kind, types.UnionType)}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if name not in _TYPES:
            raise InputError(f"a spec has no field '{name}': {suggest(str(name), _TYPES)}")
    return values


def _typed(name: str, kind: Any, value: Any) -> Any:
    """`value` as the field's type, or an InputError. 1 is a float; True is not an int."""
    if name in _OPTIONAL:
        return None if value is None else _typed_number(name, int, value)
    if name.endswith("_by_role"):
        return _typed_roles(name, value)
    if kind in (int, float):
        return _typed_number(name, kind, value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} must be a list of numbers, not {value!r}")
        return tuple(_typed_number(name, float, each) for each in value)
    if not isinstance(value, kind):
        wanted = "true or false" if kind is bool else "a text"
        raise InputError(f"{name} must be {wanted}, not {value!r}")
    return value


def _typed_number(name: str, kind: type, value: Any) -> Any:
    good = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not good or not abs(value) < 1e300:  # false for nan too
        wanted = "a whole number" if kind is int else "a finite number"
        raise InputError(f"{name} must be {wanted}, not {value!r}")
    return kind(value)


def _typed_roles(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    try:
        pairs = dict(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must map roles to numbers, not {value!r}") from None
    for role in pairs:
        if role not in ROLES:
            raise InputError(f"{name}: unknown role {role!r}: {suggest(str(role), ROLES)}")
    return tuple(sorted((role, _typed_number(name, float, each)) for role, each in pairs.items()))


def _check_choice(name: str, value: Any) -> None:
    if value not in CHOICES[name]:
        hint = suggest(str(value), CHOICES[name])
        raise InputError(f"unknown {name.replace('_', ' ')} {value!r}: {hint}", name)


def _check(spec: RunSpec) -> None:
    """Everything that can be wrong without looking at the data or the network."""
    for name in CHOICES:
        _check_choice(name, getattr(spec, name))
    # (field, lowest, highest, is the highest allowed)
    ranges: list[tuple[str, float, float, bool]] = [
        ("epochs", 1, 10**6, True),
        ("batch_size", 1, 10**6, True),
        ("seed", 0, 2**63, False),
        ("norm_shares", 1, spec.batch_size, True),
        ("lr", 0, math.inf, False),
        ("momentum", 0, 1, False),
        ("weight_decay", 0, math.inf, False),
        ("drop_factor", 0, 1, True),
        ("warmup_epochs", 0, spec.epochs, False),
        ("label_smoothing", 0, 1, False),
        ("crop_padding", 0, 32, True),
        ("brightness", 0, 1, True),
        ("image_size", 0, 4096, True),
        ("random_labels", 0, 1, True),
        ("validation", 0, 1, False),
    ]
    for name, low, high, inclusive in ranges:
        value = getattr(spec, name)
        if not (low <= value <= high if inclusive else low <= value < high):
            bound = "at most" if inclusive else "below"
            upper = f" and {bound} {in_full(high)}" if high < math.inf else ""
            message = f"{name} is {in_full(value)}: write a value of at least {low}{upper}"
            raise InputError(message, name)
    _check_images(spec)
    for name in ("lr_by_role", "weight_decay_by_role"):
        for role, value in getattr(spec, name):
            if value < 0:
                raise InputError(
                    f"{name}: {role}={in_full(value)} is below 0: write 0 or more", name
                )
    for name in sorted(_OPTIONAL):
        value = getattr(spec, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: write 1 or more, or leave it out", name)
    if spec.schedule_steps is not None and "schedule_steps" not in _BY_SCHEDULE[spec.schedule]:
        message = f"schedule_steps belongs to the cosines: leave it out with {spec.schedule}"
        raise InputError(message, "schedule_steps")
    if list(spec.drops) != sorted(set(spec.drops)) or not all(0 < d < 1 for d in spec.drops):
        message = "drops must rise and lie between 0 and 1 (shares of the run), as in 1/2,3/4"
        raise InputError(message, "drops")
    if spec.schedule != "step":
        for name, wrong in (("drops", spec.drops), ("drop_factor", spec.drop_factor != 1)):
            if wrong:
                message = f"{name} belongs to the step schedule: leave it out with {spec.schedule}"
                raise InputError(message, name)
    if spec.norm_shares > 1 and spec.statistics == "frozen":
        message = "norm_shares parts a batch, and statistics frozen looks at none: leave it out"
        raise InputError(message, "norm_shares")
    if spec.optimizer == "sgd":
        if spec.betas:
            raise InputError("betas belongs to adam and adamw: leave it out with sgd", "betas")
        if spec.nesterov and not spec.momentum:
            raise InputError("nesterov needs a momentum above 0", "nesterov")
    else:
        for name in ("momentum", "nesterov"):
            if getattr(spec, name):
                message = f"{name} belongs to sgd: leave it out with {spec.optimizer}"
                raise InputError(message, name)
        if len(spec.betas) != 2 or not all(0 <= beta < 1 for beta in spec.betas):
            message = "betas must be two numbers of at least 0 and below 1, as in 0.9,0.999"
            raise InputError(message, "betas")


def _check_images(spec: RunSpec) -> None:
    """Images of one size are shifted and stay as they are; others are cropped and resized."""
    if spec.data != "imagenet" and spec.image_size:
        message = f"image_size belongs to imagenet: leave it out with {spec.data}"
        raise InputError(message, "image_size")
    if spec.data == "imagenet" and spec.image_size < _SMALLEST:
        message = f"image_size is {spec.image_size}: write {_SMALLEST} or more for imagenet"
        raise InputError(message, "image_size")
    if spec.data == "imagenet" and spec.crop_padding:
        message = "crop_padding belongs to images of one size: leave it out with imagenet"
        raise InputError(message, "crop_padding")
