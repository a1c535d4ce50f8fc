"""One of two processes that train a subset under DistributedDataParallel: see test_own_loop.py.

Arguments: rank, file through which they meet, folder for the deltas."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from gammabeta import create_model, save_delta, select

TEXTS = ("bn+output", "beta+random:2")
TRACKED = "bn"  # and the running statistics follow the data
RATES = {"bn+output": {"output": 0.01, "gamma": 0.1, "beta": 0.1}, "beta+random:2": 0.1}


def images():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 8, 3, 8, 8, generator=draw), torch.randint(10, (3, 8), generator=draw)


def network(text, statistics="frozen"):
    """Statistics that stay: then half a batch is normalised as the whole one is."""
    module = create_model("cifar_resnet_8_4", seed=1)
    subset = select(module, text, statistics=statistics)
    subset.apply(module)
    return module.train(), subset


def train(module, subset, part, forward):
    groups = subset.parameter_groups(module, lr=RATES.get(subset.text, 0.1))
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)
    for x, y in zip(*images(), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(forward(x[part]), y[part]).backward()
        optimizer.step()


def main():
    rank, meeting, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for number, text in enumerate(TEXTS):
        module, subset = network(text)
        parallel = DistributedDataParallel(module)
        train(module, subset, slice(4 * rank, 4 * rank + 4), parallel)
        save_delta(parallel, subset, folder / f"{number}-{rank}.delta")
    module, subset = network(TRACKED, "track")
    parallel = DistributedDataParallel(module)
    train(module, subset, slice(4 * rank, 4 * rank + 4), parallel)
    save_delta(parallel, subset, folder / f"tracked-{rank}.delta")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
