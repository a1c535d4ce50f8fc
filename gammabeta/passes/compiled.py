"""C++ sources, compiled on this machine at first use and kept in the cache.

-march=native is what makes them fast, so no wheel could carry them. There is always something right
and slower for a machine without a compiler.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from gammabeta.cache import cache_folder
from gammabeta.locks import try_lock

_SHARED = Path(__file__).parent  # a source finds the headers there, and those beside itself
_PATIENCE = 30.0  # seconds: compiling takes five
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-ignored-attributes")


NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}  # what a source's functions end with
MOST_CHANNELS = 2048  # MOST_WIDE in lanes.h


class Unavailable(Exception):
    """Why a source cannot be used here."""


@functools.cache
def loaded(source: Path) -> ctypes.CDLL | Unavailable:
    """The compiled source, or the reason why there is none. Compiles once for each processor."""
    try:
        return _open(_compiled(source))
    except Unavailable as reason:
        return reason
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(f"{source.name} could not be compiled or loaded ({error})")


def why_not(source: Path) -> str | None:
    """Why a source cannot be used on this machine, or None."""
    found = loaded(source)
    return str(found) if isinstance(found, Unavailable) else None


def will_compile(source: Path) -> bool:
    """Whether a source still has to be compiled here, which takes a while and happens once."""
    try:
        return not _is_whole(cache_folder() / _name(source, _compiler()))
    except (Unavailable, OSError):
        return False


def _compiler() -> list[str]:
    """The command that compiles: $CXX, or the one that is there. Raises Unavailable."""
    given = shlex.split(os.environ.get("CXX", ""))
    found = given or [name for name in ("g++", "c++") if shutil.which(name)][:1]
    if not found:
        raise Unavailable("no C++ compiler was found: install g++, or name one in CXX")
    if shutil.which(found[0]) is None:
        raise Unavailable(f"CXX names {found[0]}, which is not there: install it, or unset CXX")
    return found


def _name(source: Path, compiler: Sequence[str]) -> str:
    mark = hashlib.sha256(source.read_bytes())
    for header in sorted({*source.parent.glob("*.h"), *_SHARED.glob("*.h")}):
        mark.update(header.read_bytes())
    mark.update(" ".join((*compiler, *_FLAGS, _processor())).encode())
    return f"{source.stem}-{mark.hexdigest()[:16]}.so"


def _compiled(source: Path) -> Path:
    """The library's path; compiles if it is not there, or not whole."""
    found = _compiler()
    name = _name(source, found)
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / name
        if not _is_whole(target):
            with _alone(folder):
                if not _is_whole(target):  # by another process that began earlier
                    _compile(source, found, target)
    except OSError:  # a home that cannot be written, or made: compile for this process alone
        target = Path(tempfile.mkdtemp(prefix="gammabeta-")) / name
        atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
        _compile(source, found, target)
    return target


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of the processes that torchrun or `reproduce --jobs` starts at once, one compiles and the
    others wait for it, but not for ever. Where a folder cannot be locked, each compiles."""
    until = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            while not try_lock(descriptor) and time.monotonic() < until:
                time.sleep(0.05)
        yield


def _compile(source: Path, compiler: Sequence[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # Not linked against an OpenMP library: it must use the threads that torch has.
        made, unit = Path(folder, "made.so"), Path(folder, "unit.o")
        for command in (
            [*compiler, *_FLAGS, "-I", str(_SHARED), "-c", str(source), "-o", str(unit)],
            [*compiler, "-shared", str(unit), "-o", str(made)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                line = (done.stderr.strip().splitlines() or ["no message"])[0]
                raise Unavailable(f"{compiler[0]} could not compile {source.name}: {line}")
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        made.replace(target)
        target.with_suffix(".sha256").write_text(digest)


def _is_whole(library: Path) -> bool:
    """Whether a kept library is what was compiled: loading a torn one kills the process."""
    try:
        digest = library.with_suffix(".sha256").read_text()
        return hashlib.sha256(library.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _open(path: Path) -> ctypes.CDLL:
    _torch_openmp()
    return ctypes.CDLL(str(path))


def _torch_openmp() -> None:
    """Make the OpenMP library that torch uses visible, so that there is one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    beside = Path(torch.__file__).parents[1] / "torch.libs"
    found = [*folder.glob("libgomp*.so*"), *beside.glob("libgomp*.so*")]
    ctypes.CDLL(str(found[0]) if found else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)


def _processor() -> str:
    """What -march=native looks at: a cache folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    told = [
        line for line in lines if line.startswith(("flags", "Features", "CPU part", "model name"))
    ]
    return "\n".join([platform.machine(), *sorted(set(told))])
