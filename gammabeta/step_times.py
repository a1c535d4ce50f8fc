"""Times of single steps, kept in the cache folder from one call to the next.

A time is found again only for the very same key: what was timed, by which engine, on which hardware
with how many threads, by which versions. The whole key stands in the file beside the time, so what
was measured elsewhere (a home folder on two machines) is never taken for ours. After a day it is
measured anew, and after ten minutes if the machine was busy with other work: a step takes several
times as long then. What cannot be read is measured and written anew; what cannot be written is not
kept.
"""

import contextlib
import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gammabeta import passes
from gammabeta.cache import cache_folder
from gammabeta.disk import decode_json, encode_json, replace_file
from gammabeta.environment import hardware
from gammabeta.fused import direct
from gammabeta.spec import RunSpec
from gammabeta.version import __version__

_FORMAT = 3
_OLDEST = 86400.0  # seconds
_OLDEST_BUSY = 600.0
BUSY = 0.25  # of the processors


@dataclass(frozen=True)
class StepTime:
    """seconds: of one step; load: how busy other work kept the machine, as `load` says; when: it
    was measured, in seconds since 1970; None: by this call."""

    seconds: float
    load: float = 0.0
    when: float | None = None


def load() -> float:
    """How much there was to run on this machine in the last minute or so: 1 for as much as it has
    processors. Our own work is part of it, so it is to be asked before that begins. 0 where it is
    not known."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # not on Windows
        return 0.0


def step_key(spec: RunSpec, engine: str, device: torch.device) -> dict[str, Any]:
    """Everything that a step's time follows from, as JSON values. engine: as it was asked for; what
    "auto" makes of it follows from the rest."""
    return {
        "format": _FORMAT, "spec": spec.to_dict(), "engine": engine, "device": str(device),
        "hardware": hardware(device), "threads": torch.get_num_threads(),
        "slow": (passes.why_slow() or direct.why_slow()) if device.type == "cpu" else None,
        "torch": torch.__version__, "gammabeta": __version__,
    }  # fmt: skip


def folder() -> Path:
    """Where the times are. Raises OSError where there is no home folder."""
    return cache_folder() / "steps"


def find(key: dict[str, Any]) -> StepTime | None:
    """What was measured under this key, and not too long ago."""
    try:
        kept = decode_json(_path(key).read_bytes())
    except OSError:
        return None
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    seconds, busy, when = (kept.get(name) for name in ("seconds", "load", "when"))
    if not (isinstance(seconds, float) and isinstance(busy, float) and isinstance(when, float)):
        return None
    oldest = _OLDEST if busy < BUSY else _OLDEST_BUSY
    good = 0 < seconds < math.inf and 0 <= busy < math.inf and 0 <= time.time() - when <= oldest
    return StepTime(seconds, busy, when) if good else None


def keep(key: dict[str, Any], seconds: float, busy: float = 0.0) -> None:
    """Write a time down, all of it or nothing. busy: the `load` under which it was taken."""
    kept = {"key": key, "seconds": float(seconds), "load": float(busy), "when": time.time()}
    with contextlib.suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, encode_json(kept))


def _path(key: dict[str, Any]) -> Path:
    return folder() / f"{hashlib.sha256(encode_json(key)).hexdigest()[:16]}.json"
