"""Where the numbers of a page come from: data, seeds, hardware, software, time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gammabeta.analysis import RunRow, counted
from gammabeta.errors import RunError
from gammabeta.sentences import seconds
from gammabeta.store import RunFolder


def sources(runs: Sequence[RunFolder], rows: Sequence[RunRow]) -> list[tuple[str, list[str]]]:
    """Where the numbers of these runs come from: (what, lines). rows: of the same runs, and of
    those that cannot be read."""
    inputs = [run.inputs["data"] for run in runs]
    sessions = [session for run in runs for session in _sessions(run)]
    marks = sorted({data["sha256"] for data in inputs})
    lines = sorted(
        {
            f"{data['train']:,} training and {data['test']:,} test images, "
            f"{data['num_classes']} classes; {data['source']}"
            for data in inputs
        }
    )
    if len(marks) > 1:
        lines.append(f"Beware: these runs read {len(marks)} different versions of the data.")
    lines += [f"sha256 {mark}" for mark in marks]
    executed = Counter(
        f"{session.get('hardware', 'unknown hardware')}; {session.get('device', '?')}, "
        f"{_threads(session)}, engine {session.get('engine', '?')}"
        for session in sessions
    )
    times = [row.seconds or 0 for row in rows if row.status == "ok"]
    found = [
        ("Data", lines),
        ("Seeds", [", ".join(map(str, sorted({row.seed for row in rows})))]),
        ("Hardware", sorted(executed)),
        ("Software", sorted({_software(session) for session in sessions})),
    ]
    started = sorted(str(session["started"]) for session in sessions if session.get("started"))
    if started:
        found.append(("Trained", [" to ".join(sorted({started[0][:10], started[-1][:10]}))]))
    if times:
        total = f"{seconds(sum(times))} seconds of training, evaluation left out"
        found.append(("Time", [f"{total}, in {counted(len(times), 'finished run')}"]))
    return [(what, each) for what, each in found if each]


def _sessions(run: RunFolder) -> list[dict[str, Any]]:
    """Nothing for a damaged env.json: the numbers of the run are good without it."""
    try:
        sessions: list[dict[str, Any]] = run.env["sessions"]
    except RunError:
        return []
    return sessions


def _threads(session: Mapping[str, Any]) -> str:
    threads = session.get("threads")
    return counted(threads, "thread") if isinstance(threads, int) else "? threads"


def _software(session: Mapping[str, Any]) -> str:
    names = ("gammabeta", "torch", "numpy", "python")
    text = ", ".join(f"{name} {session[name]}" for name in names if session.get(name))
    if session.get("commit"):
        changed = " with local changes" if session.get("dirty") else ""
        text += f", commit {str(session['commit'])[:12]}{changed}"
    return text
