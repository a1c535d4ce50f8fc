"""Reads the pickles of the CIFAR archives without unpickling them.

A pickle is a program, and the standard unpickler runs it. This one follows the opcodes that plain
data and NumPy arrays are made of and knows no others, so there is nothing that could be called:
the names in the file are compared with a short list and stand for the few lines below, not for the
objects of that name. It is no general unpickler.
"""

import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammabeta.errors import InputError

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_LITERALS = frozenset((*_NUMBERS, *_BYTES, *_TEXTS))
_PYTHON_2_STRINGS = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# The largest batch, CIFAR-100's 50,000 images, has some 250,000. An opcode makes one object at most
# and copies none, so this bounds the memory that a file made to fill it can take.
_MOST_OPCODES = 1_000_000
# The names that NumPy's arrays are pickled with; numpy._core since NumPy 2.
_NAMES = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    **{
        f"numpy.{core}.{name}": name.rpartition(".")[2]
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    },
}


class _Refused(Exception):
    """The pickle is well made, but asks for something that plain data does not need."""


@dataclass(frozen=True)
class _Name:
    """A global of `_NAMES`: a word, not the object."""

    word: str


@dataclass(eq=False)
class _Dtype:
    code: str  # "u1", "i8", ...
    order: str = "="


@dataclass(eq=False)
class _Array:
    values: np.ndarray | None = None


def read_pickle(content: bytes, where: str) -> dict[str, Any]:
    """The dict that this pickle holds: its keys as text, its arrays as NumPy arrays of integers.

    where: the file, for messages. Python 2's strings come as bytes. Raises InputError for
    whatever is no such dict, names the first global or opcode refused, and runs nothing of it.
    """
    try:
        value = _Machine().run(content)
        if not isinstance(value, dict):
            raise _Refused(f"a {type(value).__name__} in place of a dict")
        return {_text(key): _finished(item) for key, item in value.items()}
    except _Refused as error:
        raise InputError(
            f"{where}: this pickle holds {error}, and only lists, dicts, texts, numbers and NumPy "
            "arrays are read: take the file from the original archive"
        ) from None
    except Exception as error:  # a damaged pickle can break any step of the machine
        reason = ascii(str(error))[1:-1][:80]
        raise InputError(
            f"{where} is no complete pickle ({type(error).__name__}: {reason}): "
            "take the file from the original archive"
        ) from None


class _Machine:
    """The stack machine of the pickle format, cut down to data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Follow `content` to its STOP; the value on top of the stack."""
        stack = self.stack
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            name = opcode.name
            if count > _MOST_OPCODES:
                raise _Refused("far more values than a batch of images")
            if name in _LITERALS:
                stack.append(argument)
            elif name in _PYTHON_2_STRINGS:
                stack.append(argument.encode("latin-1"))
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                self.memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(self.memo[argument])
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            elif name == "MARK":
                self.marks.append(len(stack))
            elif name not in ("PROTO", "FRAME", "STOP"):
                self._build(name, argument)
        return stack[-1]

    def _build(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append([] if name == "EMPTY_LIST" else self._since_mark())
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._since_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("EMPTY_DICT", "DICT"):
            stack.append({} if name == "EMPTY_DICT" else _pairs(self._since_mark()))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._since_mark()
            _expect(stack[-1], dict).update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(_known(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            stack.append(_known(f"{_expect(module, str)}.{_expect(attribute, str)}"))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(_make(_expect(function, _Name).word, _expect(arguments, tuple)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _fill(stack[-1], _expect(state, tuple))
        else:
            raise _Refused(f"the opcode {name}")

    def _pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise ValueError("empty stack")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _known(name: str) -> _Name:
    if name not in _NAMES:
        raise _Refused(f"the name {ascii(name)[1:-1][:80]}")
    return _Name(_NAMES[name])


def _make(word: str, arguments: tuple[Any, ...]) -> Any:
    """What calling the NumPy function of that name would give, for the cases arrays need."""
    if word == "dtype":
        return _dtype(_text(arguments[0]))
    if word == "_reconstruct" and arguments[0] == _Name("ndarray"):
        return _Array()
    if word == "_frombuffer":
        raw, dtype, shape, order = arguments[:4]
        return _Array(_array(raw, dtype, shape, _text(order)))
    if word == "scalar":
        dtype, raw = arguments
        return int(_array(raw, dtype, (), "C")[()])
    raise _Refused(f"an unusual use of {word}")


def _fill(target: Any, state: tuple[Any, ...]) -> None:
    """BUILD: give a dtype its byte order, or an empty array its content, once."""
    if isinstance(target, _Dtype):
        target.order = _text(state[1])
        if target.order not in ("<", ">", "|", "="):
            raise _Refused("a data type without a byte order")
    elif isinstance(target, _Array) and target.values is None:
        _, shape, dtype, is_fortran, raw = state
        target.values = _array(raw, dtype, shape, "F" if is_fortran else "C")
    else:
        raise _Refused(f"a state for a {type(target).__name__.strip('_')}")


def _dtype(code: str) -> _Dtype:
    if not re.fullmatch(r"[ui][1248]", code):
        raise _Refused(f"an array of type {ascii(code)[1:-1][:20]}")
    return _Dtype(code)


def _array(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Integers only, and never more bytes than the file itself brought."""
    content = _expect(raw, bytes)
    kind = _expect(dtype, _Dtype)
    sizes = [_expect(size, int) for size in _expect(shape, tuple)]
    item_size = int(kind.code[1])
    if order not in ("C", "F") or len(sizes) > 4 or any(size < 0 for size in sizes):
        raise _Refused("an array of unusual shape")
    if math.prod(sizes) * item_size != len(content):
        raise _Refused("an array whose shape does not fit its content")
    values = np.frombuffer(content, np.dtype(kind.order + kind.code))
    return values.reshape(sizes, order="F" if order == "F" else "C")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(_expect(value, str))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    # Only flat keys: hashing a tuple of tuples of the same tuples could take for ever.
    for key in items[::2]:
        if not isinstance(key, str | bytes | int):
            raise _Refused(f"a {type(key).__name__} as a key")
    return dict(zip(items[::2], items[1::2], strict=True))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, (bytes, bytearray) if kind is bytes else kind):
        have, wanted = (each.__name__.strip("_") for each in (type(value), kind))
        raise _Refused(f"a {have} in place of a {wanted}")
    return value


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.values is None:
            raise _Refused("an array without content")
        return value.values
    return value
