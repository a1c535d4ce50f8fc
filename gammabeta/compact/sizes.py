"""The sizes of images that a graph is right for.

A forward may branch on sizes: pad where W is odd, pool where H is large. torch.export follows the
branch that the images it is shown take, and keeps what it asked on the way as conditions on sizes.
They travel with the network, as plain data (`Network.conditions`), and it refuses all other sizes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.export import ExportedProgram

from gammabeta.compact.network import fits, shown
from gammabeta.errors import InputError

_MANY = range(2, 65)  # numbers of images that a graph must fit
_COMPARISONS = {
    sympy.Eq: "==", sympy.Ne: "!=", sympy.Lt: "<", sympy.Le: "<=", sympy.Gt: ">", sympy.Ge: ">=",
}  # fmt: skip
# torch has functions of its own for whole numbers, told by name. PythonMod and Mod differ for
# negative numbers only, which sizes are not.
_NAMED = {
    "Max": "max", "Min": "min", "And": "and", "Or": "or", "Not": "not", "FloorDiv": "//",
    "CleanDiv": "//", "Mod": "%", "PythonMod": "%", "IntTrueDiv": "/", "FloatTrueDiv": "/",
    "CeilToInt": "ceil", "ceiling": "ceil", "FloorToInt": "floor", "floor": "floor",
    "TruncToInt": "trunc",
}  # fmt: skip


def conditions(program: ExportedProgram) -> list[Any]:
    """What sizes (N, C, H, W) must fulfil, as network.py evaluates it. Raises InputError for
    conditions that a file cannot hold."""
    shape = input_shape(program)
    symbols: dict[Any, list[Any]] = {}
    for place, size in enumerate(shape):
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            symbols.setdefault(size.node.expr, ["size", place])
    found = []
    for place, size in enumerate(shape):
        expression = sympy.Integer(size) if isinstance(size, int) else size.node.expr
        if symbols.get(expression) != ["size", place]:
            found.append(["==", ["size", place], _plain(expression, symbols)])
    for symbol, bounds in program.range_constraints.items():
        if symbol in symbols and bounds.lower > 1:
            found.append([">=", symbols[symbol], _plain(bounds.lower, symbols)])
        if symbol in symbols and bounds.upper.is_Integer:
            found.append(["<=", symbols[symbol], _plain(bounds.upper, symbols)])
    for environment in _environments(shape):
        for guard in environment.guards:
            expression = environment.replace(guard.expr)
            if expression is not sympy.true:
                found.append(_plain(expression, symbols))
    return [each for index, each in enumerate(found) if each not in found[:index]]


def of_any_number(found: Sequence[Any], images: Tensor) -> list[Any]:
    """Conditions without those that are false for one image alone: torch.export asks for two or
    more for its own sake, and whether the graph is right for one is seen (verify.py). Raises
    InputError where a graph fits only some numbers of images (N, C, H, W)."""
    shape = images.shape[1:]
    left = []
    for condition in found:
        wrong = [n for n in (len(images), *_MANY) if n > 1 and not fits(condition, (n, *shape))]
        if wrong:
            raise InputError(
                f"the graph of this network does not fit {wrong[0]} images, only numbers of them N "
                f"with {shown(condition, images.dim())}: let its forward treat all alike, for "
                "example with x.shape[0] in place of len(x)"
            )
        if fits(condition, (1, *shape)):
            left.append(condition)
    return left


def input_shape(program: ExportedProgram) -> Sequence[int | torch.SymInt]:
    (name,) = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.name == name)
    shape: Sequence[int | torch.SymInt] = node.meta["val"].shape
    return shape


def _environments(shape: Sequence[Any]) -> Iterator[Any]:
    """What torch.export knows of the sizes: one for all of them, if any is free."""
    yield from [size.node.shape_env for size in shape if isinstance(size, torch.SymInt)][:1]


def _plain(expression: Any, symbols: dict[Any, list[Any]]) -> Any:
    """An expression of sympy as numbers and lists."""
    if expression in symbols:
        return symbols[expression]
    if expression.is_Integer:
        return int(expression)
    if expression.is_Float:
        return float(expression)
    kind = expression.func
    if kind in _COMPARISONS:
        return [_COMPARISONS[kind], *_parts(expression, symbols)]
    if expression.is_Add:
        return ["+", *_parts(expression, symbols)]
    if expression.is_Mul:
        return ["*", *_parts(expression, symbols)]
    if expression.is_Rational:
        return ["/", int(expression.p), int(expression.q)]
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        return ["*", *[_plain(expression.base, symbols)] * int(expression.exp)]
    if kind.__name__ == "ToFloat":
        return _parts(expression, symbols)[0]
    if kind.__name__ in _NAMED:
        return [_NAMED[kind.__name__], *_parts(expression, symbols)]
    raise InputError(f"the sizes that this network takes follow '{expression}'"[:200])


def _parts(expression: Any, symbols: dict[Any, list[Any]]) -> list[Any]:
    return [_plain(each, symbols) for each in expression.args]
