"""The passes in C++ (passes.cpp), compiled on this machine at first use and kept in the cache.

-march=native is what makes them fast, so no wheel could carry them. Without a compiler the passes
are those of twin.py: right, and slower. So they are for tensors that these do not take.
"""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gammabeta.cache import cache_folder
from gammabeta.passes import twin
from gammabeta.passes.plain import plain

_SOURCE = Path(__file__).with_name("passes.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-Wno-ignored-attributes")
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_MOST_CHANNELS = 2048  # what the accumulators on the stack hold


class Unavailable(Exception):
    """Why the compiled passes cannot be used here."""


@functools.cache
def library() -> ctypes.CDLL | Unavailable:
    """The compiled passes, or the reason why there are none. Compiles once for each processor."""
    try:
        return _open(_compiled())
    except Unavailable as reason:
        return reason
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(f"the C++ passes could not be compiled or loaded ({error})")


def why_slow() -> str | None:
    """Why the compiled passes cannot be used on this machine's CPU, or None."""
    found = library()
    return str(found) if isinstance(found, Unavailable) else None


def supports(*tensors: Tensor | None, channel: Sequence[Tensor | None] = ()) -> bool:
    """Whether these can go through the compiled passes: contiguous, on the CPU, fp32 or bf16, of
    one shape, with a multiple of 16 channels; what is per `channel` is (C,) and fp32."""
    if isinstance(library(), Unavailable):
        return False
    first = tensors[0]
    assert first is not None
    few = 0 < first.shape[-1] <= _MOST_CHANNELS
    return few and plain(tensors, channel, "cpu", _NAMES, multiple=16)


def measure(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    if not supports(z):
        return twin.measure(z)
    mean, var = z.new_empty(2, z.shape[-1], dtype=torch.float32)
    _call("measure", z, z, mean, var)
    return mean, var


def normalise(
    z: Tensor,
    s: Tensor,
    t: Tensor,
    skip: Tensor | None = None,
    s2: Tensor | None = None,
    t2: Tensor | None = None,
    *,
    relu: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """s z + t (+ skip, or + s2 skip + t2), perhaps a ReLU; perhaps the bits of [output > 0]."""
    if not supports(z, skip, channel=(s, t, s2, t2)):
        return twin.normalise(z, s, t, skip, s2, t2, relu=relu, keep=keep)
    out = torch.empty_like(z)
    bits = torch.empty(z.numel() // 8, dtype=torch.uint8) if keep else None
    _call("normalise", z, z, s, t, skip, s2, t2, out, bits, int(relu))
    return out, bits


def sums(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    *,
    opened: tuple[Tensor, Tensor] | Tensor | None = None,
    more: Tensor | None = None,
    shortcut: tuple[Tensor, Tensor, Tensor] | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """dbeta, dgamma, dgamma of the shortcut, u: the sums BatchNorm's backward needs."""
    per_channel = (mean, inv, *(opened if isinstance(opened, tuple) else ()))
    if shortcut is not None:
        per_channel += shortcut[1:]
    if not supports(z, g, more, shortcut and shortcut[0], channel=per_channel):
        return twin.sums(g, z, mean, inv, opened=opened, more=more, shortcut=shortcut, keep=keep)
    dbeta, dgamma, second = z.new_empty(3, z.shape[-1], dtype=torch.float32)
    u = torch.empty_like(z) if keep else None
    bits = opened if isinstance(opened, Tensor) else None
    s, t = opened if isinstance(opened, tuple) else (None, None)
    z2, mean2, inv2 = shortcut or (None, None, None)
    outputs = (u, dbeta, dgamma, second if shortcut else None)
    _call("sums", z, g, more, z, mean, inv, s, t, bits, z2, mean2, inv2, *outputs)
    return dbeta, dgamma, second if shortcut else None, u


def input_gradient(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    s: Tensor,
    k1: Tensor,
    k2: Tensor,
    t: Tensor | None = None,
) -> Tensor:
    """dz = s (u - k1 - x_hat k2); u = g, where s z + t > 0 if t is given."""
    if not supports(z, g, channel=(mean, inv, s, t, k1, k2)):
        return twin.input_gradient(g, z, mean, inv, s, k1, k2, t)
    dz = torch.empty_like(z)
    _call("input_gradient", z, g, z, mean, inv, s, t, k1, k2, dz)
    return dz


def keep_freed_memory() -> None:
    """Ask glibc to keep what a step frees for the next one: fresh memory costs a page fault every
    4 KB, a tenth of a step. For the whole process; does nothing with another C library."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        trim, top_pad, mmap = -1, -2, -3
        for option, value in ((mmap, 2**30), (trim, 2**31 - 1), (top_pad, 2**28)):
            mallopt(option, value)


def _call(name: str, shaped: Tensor, *arguments: Tensor | int | None) -> None:
    opened = library()
    assert isinstance(opened, ctypes.CDLL)
    function = getattr(opened, f"{name}_{_NAMES[shaped.dtype]}")
    channels = shaped.shape[-1]
    values = [
        ctypes.c_int(each) if isinstance(each, int)
        else ctypes.c_void_p(None if each is None else each.data_ptr())
        for each in arguments
    ]  # fmt: skip
    rows = ctypes.c_int64(shaped.numel() // channels)
    function(*values, rows, ctypes.c_int64(channels), ctypes.c_int(torch.get_num_threads()))


def compiler() -> list[str]:
    """The command that compiles: $CXX, or the one that is there. Raises Unavailable."""
    given = shlex.split(os.environ.get("CXX", ""))
    found = given or [name for name in ("g++", "c++") if shutil.which(name)][:1]
    if not found:
        raise Unavailable("no C++ compiler was found (g++ or $CXX)")
    return found


def will_compile() -> bool:
    """Whether the passes still have to be compiled here, which takes a while and happens once."""
    try:
        return not _is_whole(cache_folder() / _name(compiler()))
    except (Unavailable, OSError):
        return False


def _name(compiler: Sequence[str]) -> str:
    mark = hashlib.sha256(_SOURCE.read_bytes())
    mark.update(" ".join((*compiler, *_FLAGS, _processor())).encode())
    return f"passes-{mark.hexdigest()[:16]}.so"


def _compiled() -> Path:
    """The library's path; compiles if it is not there, or not whole."""
    found = compiler()
    name = _name(found)
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / name
        if _is_whole(target):
            return target
        _compile(found, target)
    except PermissionError:  # a home that cannot be written: compile for this process alone
        target = Path(tempfile.mkdtemp(prefix="gammabeta-")) / name
        atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
        _compile(found, target)
    return target


def _compile(compiler: Sequence[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # Not linked against an OpenMP library: it must use the threads that torch has.
        made, unit = Path(folder, "passes.so"), Path(folder, "passes.o")
        for command in (
            [*compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(unit)],
            [*compiler, "-shared", str(unit), "-o", str(made)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                line = (done.stderr.strip().splitlines() or ["no message"])[0]
                raise Unavailable(f"{compiler[0]} could not compile the C++ passes: {line}")
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
