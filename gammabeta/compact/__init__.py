"""A smaller network that computes the same thing: channels that training switched off are removed,
exactly, BatchNorm is folded, and the result is held against the original before anyone gets it.

    smaller = compact_module(model, images, threshold=0.01)
    smaller.save("compact.safetensors")
    network = load("compact.safetensors")

original.py takes the module apart from its wrappers, trace.py and reader.py draw the graph, fold.py
folds, analyse.py finds constant channels, slots.py which channels can only go together, rewrite.py
removes them, put_back.py finds zeros that removed nothing, verify.py checks, network.py runs the
result.
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gammabeta.compact.fold import fold
from gammabeta.compact.graph import Graph
from gammabeta.compact.ledger import Entry, Ledger
from gammabeta.compact.network import Network, Node, encode, load
from gammabeta.compact.original import checked, other_sizes, prepared
from gammabeta.compact.put_back import put_back
from gammabeta.compact.rewrite import shrink
from gammabeta.compact.snap import batch_norms, check_threshold, snap
from gammabeta.compact.trace import read_graph
from gammabeta.compact.verify import Check, verify
from gammabeta.disk import check_file, write_files
from gammabeta.errors import InputError, RunError

__all__ = [
    "Check",
    "Compaction",
    "Entry",
    "Graph",
    "Ledger",
    "Network",
    "Node",
    "check_threshold",
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
    it equals; folded: that with BatchNorm folded and every channel left. zeros: the channels whose
    gamma became zero, by layer, and put_back: those whose gamma was below the threshold too and has
    its value again. notes: what could not be checked."""

    network: Network
    snapped: nn.Module
    folded: Network
    ledger: Ledger
    zeros: dict[str, list[int]]
    put_back: dict[str, list[int]]
    checks: list[Check]
    notes: list[str]

    @property
    def switched_off(self) -> dict[str, int]:
        """How many gammas became zero, by layer."""
        return {name: len(channels) for name, channels in self.zeros.items()}

    def save(self, path: str | Path) -> None:
        """Write the network to a file (.safetensors), whole or not at all; one that is there is
        replaced. Raises InputError for a path that cannot be, RunError where the disk is full."""
        path = Path(path)
        check_file(path, "compact.safetensors")
        write_files({path: encode(self.network)})


def compact_module(
    module: nn.Module,
    images: Tensor,
    *,
    threshold: float = 0.0,
    keep_idle: bool = False,
    about: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda phase: None,
) -> Compaction:
    """A smaller network with the same logits as `module` with every |gamma| < threshold at zero.

    images: a few real ones as the network takes them, normalised, (N, C, H, W) fp32, or (N, F),
    (N, C, L), (N, C, D, H, W): the result is checked on these. It takes any N, and any H and W for
    which its graph is right; all others it refuses, and notes say so. keep_idle: gammas below the
    threshold whose zero would remove nothing keep their values: the same channels go, the logits
    are those of `module` with only the other small gammas at zero. about: JSON values that travel
    with the network. say: called with each phase of the work as it begins. `module` itself does
    not change; of DataParallel and torch.compile the network inside is taken.

    Raises InputError for a network without BatchNorm, one that cannot be traced or only for one
    number of images, and a threshold that empties a layer; RunError where a check fails.
    """
    original = prepared(module)
    images = checked(images)
    check_threshold(original, threshold)
    sizes = other_sizes(original, images)
    work = functools.partial(
        _compact, images=images, threshold=threshold, keep_idle=keep_idle, say=say,
        about=dict(about or {}),
    )  # fmt: skip
    if not sizes:
        return work(original, sizes=())
    try:
        return work(copy.deepcopy(original), sizes=sizes)
    except (InputError, RunError) as error:
        why = str(error).partition(": ")[0]
    # No graph for several sizes. If there is none for one size either, that is what is told.
    found = work(original, sizes=())
    size = "x".join(map(str, images.shape[2:]))
    found.notes[-1] = f"the network takes images of {size} only, as for several sizes {why}"
    return found


def _compact(
    snapped: nn.Module,
    *,
    images: Tensor,
    sizes: Sequence[tuple[int, ...]],
    threshold: float,
    keep_idle: bool,
    say: Callable[[str], None],
    about: dict[str, Any],
) -> Compaction:
    """sizes: others (H, W) that the network should take; none: that of `images` alone."""
    gammas = {name: norm.weight.detach().clone() for name, norm in batch_norms(snapped).items()}
    zeros = snap(snapped, threshold)
    say("drawing the graph")
    graph = read_graph(snapped, images, any_size=bool(sizes))
    say("removing what is switched off")
    back = put_back(graph, snapped, gammas, zeros) if keep_idle else {}
    zeros = {
        name: [each for each in channels if each not in back.get(name, ())]
        for name, channels in zeros.items()
    }
    folded = graph.copy()
    fold(folded)
    ledger = shrink(graph)
    network = graph.network(about)
    say("checking what is left")
    checks, notes = verify(snapped, network, images, sizes)
    return Compaction(
        network.float(), snapped, folded.network().float(), ledger, zeros, back, checks, notes
    )
