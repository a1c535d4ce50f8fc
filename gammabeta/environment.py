"""Where a run was executed: versions, hardware, threads, commit. Recorded, never hashed."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gammabeta.errors import InputError
from gammabeta.version import __version__


def launched() -> tuple[int, int]:
    """(rank, count): which of how many processes this is, by the variables that torchrun sets; the
    only one without them. Raises InputError where they make no sense."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    rank, count = os.environ.get("RANK", ""), os.environ["WORLD_SIZE"]
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={count} in the environment make no sense: unset "
            "WORLD_SIZE, or start the processes with torchrun"
        )
    return int(rank), int(count)


def check_alone(what: str) -> None:
    """Raise InputError in one of several processes: `what` is the work of one."""
    count = launched()[1]
    if count > 1:
        raise InputError(
            f"{what} in one process, and torchrun started {count}: leave out torchrun, or write "
            "gammabeta train with one seed"
        )


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
