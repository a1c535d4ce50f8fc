"""A smaller network that computes the same thing: channels that training switched off are removed,
exactly, BatchNorm is folded, and the result is held against the original before anyone gets it.

    smaller = compact_module(model, images, threshold=0.01)
    Path("compact.safetensors").write_bytes(encode(smaller.network))
    network = load("compact.safetensors")

graph.py draws the graph, fold.py folds, analyse.py finds constant channels, slots.py which channels
can only go together, rewrite.py removes them, verify.py checks, network.py runs the result.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gammabeta.compact.fold import fold
from gammabeta.compact.graph import Graph, read_graph
from gammabeta.compact.ledger import Entry, Ledger
from gammabeta.compact.network import Network, Node, encode, load
from gammabeta.compact.rewrite import shrink
from gammabeta.compact.snap import batch_norms, snap
from gammabeta.compact.verify import Check, verify

__all__ = [
    "Check",
    "Compaction",
    "Entry",
    "Graph",
    "Ledger",
    "Network",
    "Node",
    "compact_module",
    "encode",
    "fold",
    "load",
    "read_graph",
    "shrink",
]


@dataclass(frozen=True)
class Compaction:
    """network: the smaller one, in fp32. snapped: the original with its small gammas at zero, which
    it equals; folded: that with BatchNorm folded and every channel left. switched_off: the gammas
    that became zero, by layer. notes: what could not be checked."""

    network: Network
    snapped: nn.Module
    folded: Network
    ledger: Ledger
    switched_off: dict[str, int]
    checks: list[Check]
    notes: list[str]


def compact_module(
    module: nn.Module,
    images: Tensor,
    *,
    threshold: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> Compaction:
    """A smaller network with the same logits as `module` with every |gamma| < threshold at zero.

    images: a few real ones as the network takes them, (N, C, H, W) fp32: the result is checked on
    these. about: JSON values that travel with the network. `module` itself does not change.
    Raises InputError for a network without BatchNorm, one that cannot be traced, or a threshold
    that empties a layer; RunError where a check fails.
    """
    batch_norms(module)
    snapped = copy.deepcopy(module).cpu().float().eval()
    switched_off = snap(snapped, threshold)
    graph = read_graph(snapped, images)
    folded = graph.copy()
    fold(folded)
    ledger = shrink(graph)
    network = graph.network(dict(about or {}))
    checks, notes = verify(snapped, network, images)
    return Compaction(
        network.float(), snapped, folded.network().float(), ledger, switched_off, checks, notes
    )
