"""Is a bf16 residual stream harmless over 432 joins? Gradients of gamma and beta of deep networks
in bf16, with the stream and its gradient in bf16 and in fp32, against double precision.

    python benchmarks/stream.py --out results/stream.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from gammabeta import create_model
from gammabeta.environment import environment
from gammabeta.fused.plan import make_plan
from gammabeta.fused.program import Program


def program(name: str, **types: torch.dtype) -> Program:
    model = create_model(name)
    plan = make_plan(model)
    weights = [model.get_submodule(layer.conv).weight.detach()[None] for layer in plan.layers]
    head = (model.fc.weight.detach()[None], model.fc.bias.detach()[None])
    made = Program(plan, weights, *head, **types)  # type: ignore[arg-type]
    for layer in plan.layers:
        made.gamma[0, layer.place] = model.get_submodule(layer.norm).weight.detach().to(made.exact)
    return made


def compare(name: str, batch: int) -> list[dict[str, Any]]:
    """One row a kind of arithmetic: how far loss and gradient are from double precision."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(1, batch, 32, 32, 3, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 10, (1, batch), generator=draw)
    exact = program(name, dtype=torch.float64)
    expected, _ = exact.step(images, labels)
    rows = []
    for text, dtype, stream in (
        ("fp32", torch.float32, torch.float32),
        ("bf16, stream fp32", torch.bfloat16, torch.float32),
        ("bf16, stream bf16", torch.bfloat16, torch.bfloat16),
    ):
        made = program(name, dtype=dtype, stream=stream)
        loss, _ = made.step(images.to(dtype), labels)
        gradient = made.gradient.double()
        rows.append(
            {
                "model": name,
                "joins": len(exact.plan.blocks),
                "batch": batch,
                "arithmetic": text,
                "loss": loss.item(),
                "exact_loss": expected.item(),
                "cosine": F.cosine_similarity(gradient, exact.gradient).item(),
                "length": (gradient.norm() / exact.gradient.norm()).item(),
            }
        )
    return rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--models", default="cifar_resnet_14,cifar_resnet_110,cifar_resnet_434,cifar_resnet_866"
    )
    options = parser.parse_args()
    rows = [row for name in options.models.split(",") for row in compare(name, options.batch)]
    result = {"environment": environment(torch.device("cpu")), "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
