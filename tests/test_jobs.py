"""Work in processes of its own: what comes back, and how it ends."""

import os
import time
from pathlib import Path

import torch

from gammabeta.jobs import in_processes


def work(piece: str) -> dict[str, str]:
    """The first answers at once, "dies" dies, the others go on for long."""
    path = Path(piece)
    path.touch()
    if path.name == "dies":
        os._exit(3)
    if not path.name.startswith("quick"):
        time.sleep(120)
    return {path.name: f"{torch.get_num_threads()} threads"}


def test_answers_come_back_and_a_death_is_noticed(tmp_path):
    pieces = [str(tmp_path / name) for name in ("quick1", "dies", "quick2")]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = dict(in_processes(work, pieces, 2))
    finally:
        torch.set_num_threads(threads)
    assert found == {
        pieces[0]: {"quick1": "1 threads"}, pieces[1]: None, pieces[2]: {"quick2": "1 threads"}
    }  # fmt: skip


def test_what_is_given_up_ends_and_begins_nothing(tmp_path):
    """As after Ctrl-C: the generator is closed where it waits."""
    pieces = [str(tmp_path / name) for name in ("quick", "b", "c", "d", "e", "f")]
    going = in_processes(work, pieces, 2)
    piece, answer = next(going)
    assert (piece, list(answer)) == (pieces[0], ["quick"])
    while not (tmp_path / "b").exists():
        time.sleep(0.05)
    started = time.monotonic()
    going.close()
    assert time.monotonic() - started < 25  # stopped, not waited for, and not killed for it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "quick"]
