"""Ten tasks on one random network: is this digit a 0, a 1, ... a 9? Each trains nothing but the
gammas, betas and head, and is a file of kilobytes. A bank of them answers a batch in which every
image is asked something else, in one pass.

    pip install gammabeta[demo]
    python examples/ten_tasks.py
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

import gammabeta
from gammabeta.data import load_dataset

NETWORK = {"name": "cifar_resnet_8", "num_classes": 2, "seed": 0}


def images(split, count):
    """float32 (N, 3, 16, 16) about 0, and the digits (N,). Half the size is enough for them."""
    pixels = torch.from_numpy(split.images[:count]).permute(0, 3, 1, 2) / 127.5 - 1
    return F.avg_pool2d(pixels, 2), torch.from_numpy(split.labels[:count])


def train(digit, pixels, digits, steps, path):
    """Is it this digit? Half of each batch are. The start is the same random network each time."""
    model = gammabeta.create_model(**NETWORK)
    subset = gammabeta.select(model, "bn+output")
    optimiser = torch.optim.SGD(subset.apply(model).values(), lr=0.1, momentum=0.9)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, steps)
    kinds = [(digits != digit).nonzero()[:, 0], (digits == digit).nonzero()[:, 0]]
    answers = torch.arange(2).repeat_interleave(32)  # 32 times no, then 32 times yes
    draw = torch.Generator().manual_seed(digit)
    for _ in range(steps):
        rows = torch.cat([rows[torch.randint(len(rows), (32,), generator=draw)] for rows in kinds])
        optimiser.zero_grad()
        F.cross_entropy(model(pixels[rows]), answers).backward()
        optimiser.step()
        falling.step()
    gammabeta.save_delta(model, subset, path, info={"task": f"is it a {digit}?"})


@torch.no_grad()
def ask(bank, pixels, digits):
    """All ten questions about each image, as one batch of ten times as many, and one at a time."""
    tasks = list(bank.tasks) * len(digits)  # 0 1 ... 9, 0 1 ... 9, for each image
    mixed = bank.forward(pixels.repeat_interleave(10, 0), tasks=tasks).view(-1, 10, 2)
    alone = torch.stack([bank.activate(task)(pixels) for task in bank.tasks], 1)  # (N, 10, 2)
    yes = mixed[..., 1] - mixed[..., 0]  # (N, 10)
    is_it = F.one_hot(digits, 10).bool()
    right = (yes > 0) == is_it
    same = torch.equal(mixed.argmax(2), alone.argmax(2))
    print(f"one batch of {len(tasks):,} questions, the same answers as one task at a time: {same}")
    print(f"  right about its own digit {right[is_it].double().mean():.1%}", end=", ")
    print(f"about the others {right[~is_it].double().mean():.1%}")
    print(f"  the surest yes names the digit: {(yes.argmax(1) == digits).double().mean():.1%}")


def main(steps=100):
    data = load_dataset("digits")
    pixels, digits = images(data.train, 4000)
    model = gammabeta.create_model(**NETWORK).eval()
    bank = gammabeta.Bank(model)
    with tempfile.TemporaryDirectory() as folder:
        for digit in range(10):
            path = Path(folder) / f"{digit}.delta"
            train(digit, pixels, digits, steps, path)
            bank.add(f"{digit}", path)
        files = sum(path.stat().st_size for path in Path(folder).iterdir())
    copies = 10 * sum(tensor.nbytes for tensor in model.state_dict().values())
    print(f"ten tasks in {files:,} bytes; ten networks would be {copies:,}")
    ask(bank, *images(data.test, 200))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="ten tasks on one random network")
    parser.add_argument("--steps", type=int, default=100, help="of each training (100)")
    main(parser.parse_args().steps)
