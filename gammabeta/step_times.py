"""Times of single steps, kept in the cache folder from one call to the next.

A time is found again only for the very same key: what was timed, by which engine, on which hardware
with how many threads, by which versions. The whole key stands in the file beside the time, so what
was measured elsewhere (a home folder on two machines) is never taken for ours. After a day it is
measured anew. What cannot be read is measured and written anew; what cannot be written is not kept.
"""

import contextlib
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gammabeta import passes
from gammabeta.cache import cache_folder
from gammabeta.disk import decode_json, encode_json, replace_file
from gammabeta.environment import hardware
from gammabeta.spec import RunSpec
from gammabeta.version import __version__

_FORMAT = 1
_OLDEST = 86400.0  # seconds: what else the machine does matters to a step


@dataclass(frozen=True)
class StepTime:
    """seconds: of one step; when: it was measured, in seconds since 1970."""

    seconds: float
    when: float


def step_key(spec: RunSpec, engine: str, device: torch.device) -> dict[str, Any]:
    """Everything that a step's time follows from, as JSON values. engine: as it was asked for; what
    "auto" makes of it follows from the rest."""
    return {
        "format": _FORMAT, "spec": spec.to_dict(), "engine": engine, "device": str(device),
        "hardware": hardware(device), "threads": torch.get_num_threads(),
        "slow": passes.why_slow() if device.type == "cpu" else None,
        "torch": torch.__version__, "gammabeta": __version__,
    }  # fmt: skip


def folder() -> Path:
    """Where the times are. Raises OSError where there is no home folder."""
    return cache_folder() / "steps"


def find(key: dict[str, Any]) -> StepTime | None:
    """What was measured under this key in the last day."""
    try:
        kept = decode_json(_path(key).read_bytes())
    except OSError:
        return None
    if not isinstance(kept, dict) or kept.get("key") != key:
        return None
    seconds, when = kept.get("seconds"), kept.get("when")
    if not (isinstance(seconds, float) and isinstance(when, float) and 0 < seconds < math.inf):
        return None
    return StepTime(seconds, when) if 0 <= time.time() - when <= _OLDEST else None


def keep(key: dict[str, Any], seconds: float) -> None:
    """Write a time down, all of it or nothing."""
    kept = {"key": key, "seconds": float(seconds), "when": time.time()}
    with contextlib.suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, encode_json(kept))


def _path(key: dict[str, Any]) -> Path:
    return folder() / f"{hashlib.sha256(encode_json(key)).hexdigest()[:16]}.json"
