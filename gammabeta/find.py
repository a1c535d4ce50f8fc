"""A run of a folder, by its id or the start of it."""

import difflib
from pathlib import Path

from gammabeta.errors import InputError, no_runs
from gammabeta.store import RunFolder, list_runs


def find_run(root: Path, id_prefix: str, damaged: bool = False) -> RunFolder:
    """The run whose id starts with `id_prefix`. Raises InputError unless there is exactly one, and
    unless `damaged` for one whose spec.json cannot be read."""
    run = _find(root, id_prefix)
    if run.damage is not None and not damaged:
        raise InputError(run.damage)
    return run


def _find(root: Path, id_prefix: str) -> RunFolder:
    if not id_prefix:  # a variable of the shell that is not set
        raise InputError("a run's id is empty: write its first digits; gammabeta runs lists them")
    runs = {run.path.name: run for run in list_runs(root, damaged=True)}
    if not runs:
        raise no_runs(root)
    if id_prefix in runs:
        return runs[id_prefix]
    found = [name for name in runs if name.startswith(id_prefix)]
    if len(found) == 1:
        return runs[found[0]]
    if not found:
        # by their starts, for an id may be cut short; never all of them: there may be hundreds
        starts = {name[: max(4, len(id_prefix))]: name for name in runs}
        near = [starts[each] for each in difflib.get_close_matches(id_prefix, starts, cutoff=0.7)]
        told = f"did you mean {' or '.join(near)}?" if near else "gammabeta runs lists them"
        raise InputError(f"no run '{id_prefix}' in {root}: {told}")
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    names = ", ".join(sorted(found)[:5])
    raise InputError(f"'{id_prefix}' could be {names}{more}: write more of the id")
