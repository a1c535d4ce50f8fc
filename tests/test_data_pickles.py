"""The reader of pickles: what NumPy and Python 2 write is read, everything else is refused."""

import builtins
import copyreg
import os
import pickle
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import python2_pickle

from gammabeta.data import pickles
from gammabeta.data.pickles import read_pickle
from gammabeta.errors import InputError


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_this_python_are_read(protocol: int, order: Any) -> None:
    data = np.arange(60, dtype=np.uint8).reshape(4, 15).copy(order=order)
    batch: dict[Any, Any] = {
        "data": data,
        b"labels": [1, 2, 300, 70_000, -1, 2**40],
        "big": np.arange(5, dtype=">i8"),
        "scalars": [np.int64(5), np.uint8(6), np.int64(5)],
        "names": ["a", b"b", 1.5, None, True, (1, (2,), ())],
    }
    result = read_pickle(pickle.dumps(batch, protocol), "file")
    assert list(result) == ["data", "labels", "big", "scalars", "names"]
    assert np.array_equal(result["data"], data)
    assert result["data"].dtype == np.uint8
    assert result["labels"] == batch[b"labels"]
    assert np.array_equal(result["big"], batch["big"])
    assert result["scalars"] == [5, 6, 5]
    assert result["names"] == batch["names"]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_python_2_pickles_are_read_under_both_spellings(core: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, size=(3, 3072), dtype=np.uint8)
    content = python2_pickle(data, [1, 0, 9], "labels")
    result = read_pickle(content.replace(b"numpy.core", core.encode()), "file")
    assert np.array_equal(result["data"], data)
    assert result["labels"] == [1, 0, 9]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


class Planted:
    """A class that a pickle may reach only through the extension registry."""

    made = False

    def __init__(self) -> None:
        Planted.made = True


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
UINT8 = b"cnumpy\ndtype\n" + text("u1") + b"\x89\x88\x87R"
EMPTY_ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
MARKER = "ran"  # every hostile command below would create a file of this name


def hostile() -> dict[str, tuple[bytes, str]]:
    """Each pickle, and the words its refusal must hold."""
    touch, python = f"touch {MARKER}", f"__import__('pathlib').Path({MARKER!r}).touch()"
    system = f"{os.name}.system"
    calls = {
        "os.system": (Call(os.system, touch), system),
        "eval": (Call(builtins.eval, python), "builtins.eval"),
        "exec": (Call(builtins.exec, python), "builtins.exec"),
        "open": (Call(builtins.open, MARKER, "w"), "io.open"),
        "getattr": (Call(getattr, "", "upper"), "builtins.getattr"),
        "object array": (np.array([Call(os.system, touch)], dtype=object), "array of type O8"),
        "structured array": (np.zeros(2, [("a", "u1")]), "array of type V1"),
        "class of NumPy": (np.random.default_rng, "default_rng"),
        "float array": (np.zeros(2), "array of type f8"),
    }
    found = {
        f"{title}, protocol {protocol}": (pickle.dumps({"data": value}, protocol), says)
        for title, (value, says) in calls.items()
        for protocol in (3, 4)
    }
    doubled = b"K\x01" + b"q\x00h\x00\x86" * 60  # a tuple of 2**60 leaves, tiny in memory
    found |= {
        "INST": (f"(S'{touch}'\nios\nsystem\n.".encode(), "opcode INST"),
        "OBJ": (f"(cos\nsystem\nS'{touch}'\no.".encode(), "os.system"),
        "OBJ of a known name": (b"(cnumpy\nndarray\nK\x00o.", "opcode OBJ"),
        "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        "NEWOBJ_EX": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "opcode NEWOBJ_EX"),
        "persistent id": (b"Pwhatever\n.", "opcode PERSID"),
        "binary persistent id": (b"K\x01Q.", "opcode BINPERSID"),
        "EXT1": (b"\x80\x02\x82\xf0)R.", "opcode EXT1"),
        "EXT2": (b"\x80\x02\x83\xf0\x00)R.", "opcode EXT2"),
        "EXT4": (b"\x80\x02\x84\xf0\x00\x00\x00)R.", "opcode EXT4"),
        "buffer from outside": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
        "set": (pickle.dumps({"data": {1}}, 4), "opcode EMPTY_SET"),
        "dotted name": (
            b"\x80\x04" + text("numpy.core.multiarray") + text("scalar.__globals__") + b"\x93.",
            "scalar.__globals__",
        ),
        "call of ndarray": (b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", "unusual use of ndarray"),
        "reconstruct of another class": (RECONSTRUCT + b"K\x01K\x02C\x01b\x87R.", "unusual use"),
        "call of a text": (text("os.system") + text(touch) + b"\x85R.", "in place of a Name"),
        "state for a name": (b"cnumpy\ndtype\n(K\x01tb.", "a state for a Name"),
        "state for a dict": (b"}" + text("a") + b"\x85b.", "a state for a dict"),
        "slots for a name": (
            b"cnumpy\ndtype\nN}" + text("type") + b"K\x01s\x86b.",
            "a state for a Name",
        ),
        "second state": (
            EMPTY_ARRAY + b"(K\x01K\x01\x85" + UINT8 + b"\x89C\x01xtb(K\x01tb.",
            "a state for a Array",
        ),
        "huge array": (
            EMPTY_ARRAY + b"(K\x01" + b"J\xff\xff\xff\x7f" * 2 + b"\x86" + UINT8 + b"\x89C\x01xtb.",
            "does not fit",
        ),
        "negative shape": (
            EMPTY_ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + UINT8 + b"\x89C\x01xtb.", "unusual shape"
        ),
        "array without content": (b"}" + text("data") + EMPTY_ARRAY + b"s.", "without content"),
        "huge bytearray": (b"\x80\x05\x96" + b"\xff" * 7 + b"\x0f.", "complete"),
        "huge bytes": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f.", "complete"),
        "huge frame": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x0fK\x01.", "int in place of a dict"),
        "huge memo index": (b"K\x01r\xff\xff\xff\x7f.", "int in place of a dict"),
        "deep tuple": (b"K\x00" + b"\x85" * 100_000 + b".", "tuple in place of a dict"),
        "deep list": (b"]" * 100_000 + b"a" * 99_999 + b".", "list in place of a dict"),
        "slow key": (b"}" + doubled + b"K\x01s.", "tuple as a key"),
        "a list": (b"].", "list in place of a dict"),
        "key without value": (b"}(K\x01u.", "complete"),
        "unset memo": (b"h\x05.", "complete"),
        "empty stack": (b".", "complete"),
        "mark missing": (b"]K\x01e.", "complete"),
        "empty file": (b"", "complete"),
        "text file": (b"hello\nworld\n", "complete"),
        "many digits": (b"I" + b"9" * 10_000 + b"\n.", "complete"),
        "line break in the name": (
            b"\x80\x04" + text("a\nb") + text("c" * 500) + b"\x93.", r"the name a\nb.ccc"
        ),
    }  # fmt: skip
    return found


@pytest.fixture
def extension() -> Iterator[None]:
    """A class registered and already cached, which lets EXT opcodes pass by find_class."""
    key = (Planted.__module__, Planted.__qualname__)
    copyreg.add_extension(*key, 0xF0)
    copyreg._extension_cache[0xF0] = Planted  # type: ignore[attr-defined]
    yield
    copyreg._extension_cache.pop(0xF0, None)  # type: ignore[attr-defined]
    copyreg.remove_extension(*key, 0xF0)
    Planted.made = False


@pytest.mark.parametrize("title", hostile())
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: None
) -> None:
    content, says = hostile()[title]
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    with pytest.raises(InputError) as caught:
        read_pickle(content, "data_batch_1")
    message = str(caught.value)
    assert message.startswith("data_batch_1")
    assert says in message
    assert "\n" not in message
    assert len(message) < 300
    assert not list(tmp_path.iterdir())
    assert not Planted.made
    assert set(sys.modules) == modules


def test_the_number_of_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of .tar.gz can hold half a billion of these."""
    monkeypatch.setattr(pickles, "_MOST_OPCODES", 1000)
    with pytest.raises(InputError, match="far more values"):
        read_pickle(b"]" * 1002 + b".", "file")


def test_the_hostile_pickles_do_harm_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: None
) -> None:
    """Otherwise the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    for title in ("os.system, protocol 3", "eval, protocol 4", "INST", "object array, protocol 4"):
        pickle.loads(hostile()[title][0])
        (tmp_path / MARKER).unlink()
    pickle.loads(hostile()["EXT1"][0])
    assert Planted.made


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_truncation_is_an_input_error(protocol: int) -> None:
    data = np.arange(24, dtype=np.uint8).reshape(2, 12)
    if protocol == 2:
        content = python2_pickle(data, [1, 2], "labels")
    else:
        content = pickle.dumps({"labels": [1, 2], "data": data}, protocol)
    for length in range(len(content)):
        with pytest.raises(InputError):
            read_pickle(content[:length], "file")


def test_a_changed_byte_never_raises_anything_but_input_error() -> None:
    draws = np.random.default_rng(0)
    data = np.arange(24, dtype=np.uint8).reshape(2, 12)
    for content in (python2_pickle(data, [1, 2], "labels"), pickle.dumps({"data": data}, 5)):
        refused = 0
        for _ in range(3000):
            changed = bytearray(content)
            for place in draws.integers(0, len(content), size=2):
                changed[place] = draws.integers(0, 256)
            try:
                read_pickle(bytes(changed), "file")
            except InputError:
                refused += 1
        assert refused > 1000
