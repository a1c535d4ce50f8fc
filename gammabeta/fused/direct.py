"""The convolutions of direct.cpp: what they take, and how they are called."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gammabeta.fused.plan import Layer, Plan
from gammabeta.passes import compiled

SOURCE = Path(__file__).with_name("direct.cpp")
Given = Tensor | ctypes.Structure | int | None
Gradient = Mapping[str, Tensor | ctypes.Structure]


def _structure(name: str, *fields: tuple[str, type]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


def _integers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names]


def _pointers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


# As in direct.cpp, field for field.
_Convolution = _structure(
    "Convolution", *_integers("images", "size", "outputs", "inputs", "stride", "taps")
)
BUFFERS = ("gamma", "beta", "mean", "inv", "scale", "shift", "running_mean", "running_var",
            "dgamma", "dbeta")  # fmt: skip
_Norm = _structure(
    "Norm", *_pointers(*BUFFERS), ("eps", ctypes.c_double), ("momentum", ctypes.c_double)
)
_Forward = _structure(
    "Forward",
    ("layer", _Convolution),
    *_pointers("input", "weight", "norm", "skip", "skip_norm", "a", "bits", "z", "own"),
    *_integers("side_taps"),
    *_pointers("side_weight", "side", "side_own"),
)
_Gradient = _structure("Gradient", *_pointers("u", "z", "weight", "norm"))
_Backward = _structure(
    "Backward",
    ("layer", _Convolution),
    ("main", _Gradient),
    ("side", _Gradient),
    *_integers("side_taps"),
    *_pointers("more", "bits", "z", "norm", "z2", "norm2", "out"),
)


def why_slow() -> str | None:
    """Why they cannot be used on this machine's CPU, or None."""
    return compiled.why_not(SOURCE)


def will_compile() -> bool:
    """Whether they still have to be compiled here."""
    return compiled.will_compile(SOURCE)


def takes(plan: Plan, dtype: torch.dtype) -> bool:
    """Whether a program of this plan and type can have them: they are compiled here, and every
    layer has channels in sixteens and rows that are a multiple of what they do at once."""
    library = compiled.loaded(SOURCE)
    if isinstance(library, compiled.Unavailable) or dtype not in compiled.NAMES:
        return False
    return all(
        layer.channels % 16 == 0
        and layer.channels <= compiled.MOST_CHANNELS
        and layer.size % library.pixels() == 0
        and layer.kernel in (1, 3)
        for layer in plan.layers
    )


def pack(layer: Layer, weight: Tensor, dtype: torch.dtype, back: bool) -> Tensor:
    """A weight (O, I, k, k) in the order in which it is read, forward or back: opaque bytes."""
    shape = _convolution(layer, 0)
    count = _function("packed_bytes", dtype, ctypes.c_int64)(ctypes.byref(shape), int(back))
    packed = torch.empty(count, dtype=torch.uint8)
    exact = weight.to(dtype).float().contiguous()
    addresses = [ctypes.c_void_p(each.data_ptr()) for each in (exact, packed)]
    _function("pack", dtype)(ctypes.byref(shape), int(back), *addresses)
    return packed


def norm(layer: Layer, buffers: Mapping[str, Tensor]) -> ctypes.Structure:
    """The BatchNorm behind a layer in flat buffers (channels of all layers,), fp32: gamma, beta,
    mean, inv, scale, shift, running_mean, running_var, dgamma, dbeta. They must outlive it."""
    made = _Norm(eps=layer.eps, momentum=layer.momentum)
    _fill(made, **{name: buffers[name][layer.place] for name in BUFFERS})
    return made


def forward(layer: Layer, **given: Given) -> None:
    """z = weight * x, and in training the statistics of z, into the BatchNorm `own`.

    x is `input` (..., N, H, W, C) or, with a `norm`, relu(norm(input) (+ skip, or
    + skip_norm(skip))); it is written to `a` and [x > 0] to `bits`, where these are given.
    side_taps, side_weight, side and side_own: a second convolution of the same x.
    """
    z = given["z"]
    assert isinstance(z, Tensor)
    _run("forward", z, _fill(_Forward(layer=_convolution(layer, z.shape[-4])), **given))


def backward(layer: Layer, main: Gradient, side: Gradient | None = None, **given: Given) -> None:
    """out = (the gradient at the layer's input (+ the side's) (+ more)) where the ReLU below is
    open: by its `bits`, or where norm(z) > 0.

    main, and side's: u, the gradient at the output of BatchNorm `norm`, z (..., N, H, W, C), and
    the weight, packed back. The sums of `out`, dbeta and dgamma, go to BatchNorm `norm` of `z`
    and, if there is one, norm2 of `z2`. side_taps: of the side's convolution.
    """
    out = given["out"]
    assert isinstance(out, Tensor)
    call = _fill(_Backward(layer=_convolution(layer, out.shape[-4])), **given)
    _fill(call.main, **main)
    _fill(call.side, **side or {})
    _run("backward", out, call)


def _convolution(layer: Layer, images: int) -> ctypes.Structure:
    return _Convolution(
        images, layer.size, layer.channels, layer.channels_in, layer.stride, layer.kernel
    )


def _fill(call: ctypes.Structure, **given: Given) -> ctypes.Structure:
    """The caller keeps what is given until the call is made."""
    for name, value in given.items():
        if isinstance(value, Tensor):
            assert value.is_contiguous()
            setattr(call, name, value.data_ptr())
        elif isinstance(value, ctypes.Structure):
            setattr(call, name, ctypes.addressof(value))
        elif value is not None:
            setattr(call, name, value)
    return call


def _run(name: str, shaped: Tensor, call: ctypes.Structure) -> None:
    _function(name, shaped.dtype)(ctypes.byref(call), torch.get_num_threads())


def _function(name: str, dtype: torch.dtype, result: type | None = None) -> Any:
    library = compiled.loaded(SOURCE)
    assert isinstance(library, ctypes.CDLL)
    function = getattr(library, f"{name}_{compiled.NAMES[dtype]}")
    function.restype = result
    return function
