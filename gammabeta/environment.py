"""Where a run was executed: versions, hardware, threads, commit. Recorded, never hashed."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gammabeta.version import __version__


def environment(device: torch.device) -> dict[str, Any]:
    """JSON values that say on what machine and with what software this process runs."""
    commit, dirty = _commit()
    return {
        "gammabeta": __version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "hardware": hardware(device),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def hardware(device: torch.device) -> str:
    """One line: the GPU's name, or the processor's with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package was imported from, and whether it was changed since."""
    top = Path(__file__).parent.parent
    if not (top / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(top), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
