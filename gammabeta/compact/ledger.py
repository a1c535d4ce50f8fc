"""What happened to every channel of every layer, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gammabeta.compact.graph import MIXES, Graph, Step


@dataclass
class Entry:
    """One output channel of a convolution or linear layer, numbered as in the original network."""

    layer: str
    norm: str
    channel: int
    stays: bool
    why: str


class Ledger:
    """Entries of a graph's layers, in order."""

    def __init__(self, graph: Graph) -> None:
        self._entries: dict[tuple[str, int], Entry] = {}
        self._holding: set[tuple[str, int]] = set()
        for step in graph.steps.values():
            if step.kind == MIXES:
                for channel in step.origin:
                    entry = Entry(step.node.name, step.norm, channel, True, "")
                    self._entries[step.node.name, channel] = entry

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    @property
    def gone(self) -> set[tuple[str, int]]:
        """(layer, channel) of those that were removed."""
        return {key for key, entry in self._entries.items() if not entry.stays}

    def holds(self, step: Step, channels: Iterable[int]) -> None:
        """Other constant channels go into these."""
        if step.kind == MIXES:
            self._holding.update((step.node.name, step.origin[each]) for each in channels)

    def is_needed(self, step: Step, channel: int) -> bool:
        """Whether others went into this channel, numbered as in the original network."""
        return (step.node.name, channel) in self._holding

    def removed(self, step: Step, channels: Iterable[int], why: str) -> None:
        """channels: as they are numbered now."""
        for channel in channels:
            self._note(step, channel, False, why)

    def kept(self, step: Step, why: Sequence[str]) -> None:
        for channel, reason in enumerate(why):
            self._note(step, channel, True, reason)

    def _note(self, step: Step, channel: int, stays: bool, why: str) -> None:
        if step.kind != MIXES:  # a BatchNorm that is not folded has channels, but no entries
            return
        entry = self._entries[step.node.name, step.origin[channel]]
        entry.norm, entry.stays, entry.why = step.norm, stays, why

    def layers(self) -> list[dict[str, Any]]:
        """A row a layer: its name, channels before and after, and how many for each reason."""
        rows: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            empty = {"layer": entry.layer, "norm": "", "before": 0, "after": 0, "removed": {}}
            row = rows.setdefault(entry.layer, empty)
            row["norm"] = entry.norm or row["norm"]
            row["before"] += 1
            row["after"] += entry.stays
            if not entry.stays:
                why = entry.why.partition(":")[0]
                row["removed"][why] = row["removed"].get(why, 0) + 1
        return list(rows.values())

    def rows(self) -> list[list[Any]]:
        """[layer, channel, "kept" or "removed", why] for each channel."""
        return [
            [entry.layer, entry.channel, "kept" if entry.stays else "removed", entry.why]
            for entry in self.entries
        ]
