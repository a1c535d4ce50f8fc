"""Fine-tune the norms and the head of a model of transformers in your own loop, each subset at the
best of the same learning rates, and keep what was trained as a file of kilobytes.

    pip install gammabeta[demo] transformers
    python examples/tune_transformers.py

The model is a small ViT at its random start, so that nothing is downloaded; with a pretrained one,
`ViTForImageClassification.from_pretrained(...)`, the rest is the same.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch

import gammabeta
from gammabeta.data import load_dataset

try:
    from transformers import ViTConfig, ViTForImageClassification
except ImportError:
    raise SystemExit("this example needs transformers: pip install transformers") from None

RATES = (0.003, 0.01, 0.03)  # of AdamW, for every subset


def images(split, first, last):
    """float32 (N, 3, 32, 32) about 0, and the labels (N,)."""
    pixels = torch.from_numpy(split.images[first:last]).permute(0, 3, 1, 2)
    return pixels / 127.5 - 1, torch.from_numpy(split.labels[first:last])


def train(model, leaves, rate, pixels, labels, steps):
    optimiser = torch.optim.AdamW(leaves, rate, weight_decay=0.0)
    draw = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,), generator=draw)
        optimiser.zero_grad()
        model(pixel_values=pixels[batch], labels=labels[batch]).loss.backward()
        optimiser.step()


@torch.no_grad()
def accuracy(model, pixels, labels):
    found = model.eval()(pixel_values=pixels).logits.argmax(1)
    return (found == labels).double().mean().item()


def main(steps=60):
    data = load_dataset("digits")
    training, held_out = images(data.train, 0, 1500), images(data.train, 1500, 2000)
    test = images(data.test, 0, 500)
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=10,
    )  # fmt: skip
    start = ViTForImageClassification(config)
    for text in ("bn+output", "output"):
        subset = gammabeta.select(start, text)  # the head is found; output="NAME" would name it
        print(subset)
        tried = []
        for rate in RATES:
            model = copy.deepcopy(start)
            leaves = subset.apply(model)
            train(model, leaves.values(), rate, *training, steps)
            tried.append((accuracy(model, *held_out), rate, model))
        score, rate, model = max(tried, key=lambda each: each[0])
        print(f"  best at {rate:g}: held out {score:.1%}, test {accuracy(model, *test):.1%}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "task.delta"
            gammabeta.save_delta(model, subset, path, info={"rate": rate})
            again = copy.deepcopy(start)
            gammabeta.load_delta(again, path)  # refused on any other start
            same = accuracy(again, *test) == accuracy(model, *test)
            print(f"  {path.stat().st_size:,} bytes; loaded into the start it is the same: {same}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="fine-tune subsets of a small ViT")
    parser.add_argument("--steps", type=int, default=60, help="of each training (60)")
    main(parser.parse_args().steps)
