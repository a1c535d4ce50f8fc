"""Every random draw of the project: a counter-based generator keyed by (seed, stream, index).

Nothing else seeds anything. A stream is a name such as ``weights.blocks.0.conv1.weight`` or
``order``; the index is an epoch, or 0. Streams are independent, so adding a draw, changing a width
or training another subset never shifts any other draw. All draws happen on the CPU, in NumPy, so a
machine with a GPU gets the same numbers as one without.
"""

import hashlib

import numpy as np


def generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """A fresh NumPy generator (Philox) for one stream; the same arguments give the same draws.

    seed: any integer >= 0. stream: the name of what is drawn. index: e.g. the epoch, >= 0.
    """
    digest = hashlib.sha256(f"gammabeta/{seed}/{index}/{stream}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
