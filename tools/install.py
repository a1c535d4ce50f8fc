"""`pip install` that says what large files it downloads and, now and then, that it goes on.

It runs before anything is installed: standard library only.
"""

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

SILENCE = 15.0  # seconds without a word, at most
_FILE = re.compile(r"\s*(Downloading|Using cached) (\S+) \(([\d.]+ [MG]B)\)")


def told(line: str) -> str | None:
    """What to say about a line of pip's, or None: files of a megabyte or more, and the end."""
    if match := _FILE.match(line):
        verb, path, size = match.groups()
        name = "-".join(path.rpartition("/")[2].split("-")[:2]).replace("%2B", "+")
        return f"{verb.lower()} {name} ({size})"
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return None


def run(command: Sequence[str], silence: float = SILENCE) -> int:
    """Run a command, tell of its output and pass its errors on; returns its exit status."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        _tell(process, silence)
    return process.returncode


def _tell(process: "subprocess.Popen[str]", silence: float) -> None:
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    started = spoke = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=max(0.0, spoke + silence - time.monotonic()))
        except queue.Empty:
            text: str | None = f"still working, {time.monotonic() - started:.0f} s"
        else:
            if line is None:
                return
            text = told(line)
        if text is not None:
            print(f"  {text}", flush=True)
            spoke = time.monotonic()


if __name__ == "__main__":
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    sys.exit(run([*pip, "--progress-bar", "off", *sys.argv[1:]]))
