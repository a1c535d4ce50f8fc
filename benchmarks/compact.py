"""What compaction takes from trained runs, and what it changes: values, operations, bytes, accuracy
and logits at several thresholds, milliseconds in torch and onnxruntime, beside Torch-Pruning.

    python benchmarks/compact.py --runs RUNS --ids ID ID --out results/compact.json [--data-dir DIR]

--parts measures some of it again and leaves the rest of the file as it is: `--parts latency` on a
quiet machine, `--parts pruning` where Torch-Pruning is (pip install --no-deps torch-pruning).
"""

import argparse
import copy
import importlib.metadata
import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta import deploy
from gammabeta.compact import Compaction
from gammabeta.compact.measure import file_size, latencies, operations, parameters
from gammabeta.deploy import Deployed
from gammabeta.environment import environment
from gammabeta.export import export_bytes, onnx_session
from gammabeta.run import load_run
from gammabeta.small import SMALL

PACKAGES = ("onnx", "onnxruntime", "onnxscript", "torch-pruning")


@torch.no_grad()
def logits(deployed: Deployed, network: nn.Module) -> Tensor:
    """Of all test images, (images, classes)."""
    return torch.cat([network(images) for images, _ in deployed.batches.test()])


class Judge:
    """What a network makes of the test images, beside the original."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.labels = torch.cat([labels for _, labels in deployed.batches.test()])

    @cached_property
    def truth(self) -> Tensor:
        return logits(self.deployed, self.deployed.network)

    def row(self, facts: dict[str, Any], network: nn.Module, same: nn.Module) -> dict[str, Any]:
        """same: what it should equal up to the rounding of fp32 (itself, where that is nothing)."""
        found = logits(self.deployed, network)
        apart = found - (found if same is network else logits(self.deployed, same))
        row = facts | {
            "parameters": parameters(network),
            "operations": operations(network, self.deployed.few[:1]),
            "bytes": file_size(network),
            "images": len(found),
            "test_accuracy": float((found.argmax(1) == self.labels).double().mean()),
            "answers_changed": int((found.argmax(1) != self.truth.argmax(1)).sum()),
            "largest_logit_change": float((found - self.truth).abs().max()),
            "off_by_rounding": float(apart.abs().max()),
        }
        told = f"{row['parameters']:,} parameters, {row['test_accuracy']:.2%}"
        print(row["network"], row.get("threshold", ""), told, flush=True)
        return row


def networks(judge: Judge, options: argparse.Namespace) -> dict[str, Any]:
    """A row for the original and for what compaction makes of it at each threshold."""
    deployed, network = judge.deployed, judge.deployed.network
    file, off = export_bytes(network, deployed.few, ".onnx", deployed.about, plain=True)
    facts: dict[str, Any] = {"network": "original", "onnx_bytes": len(file), "onnx_off": off}
    rows = [judge.row(facts, network, network)]
    for threshold in options.thresholds:
        made = deployed.compact(threshold)
        file, off = export_bytes(made.network, deployed.few, ".onnx", made.network.about)
        facts = {"network": "compact", "onnx_bytes": len(file), "onnx_off": off}
        facts |= {"threshold": threshold} | channels(made)
        facts["fp64_off"] = max(check.fp64 for check in made.checks)
        rows.append(judge.row(facts, made.network, made.snapped))
    return {"largest_logit": float(judge.truth.abs().max()), "rows": rows}


def channels(compaction: Compaction) -> dict[str, int]:
    """Of the layers with a BatchNorm; switched_off: gammas that became zero."""
    layers = [row for row in compaction.ledger.layers() if row["norm"]]
    return {
        "switched_off": sum(compaction.switched_off.values()),
        "channels_before": sum(row["before"] for row in layers),
        "channels": sum(row["after"] for row in layers),
    }


def latency(judge: Judge, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of the original, the folded and the compact network in torch and onnxruntime,
    all in turns. The original goes to onnxruntime as torch has it, with every BatchNorm."""
    deployed = judge.deployed
    made = deployed.compact(SMALL)
    contenders = {"original": deployed.network, "folded": made.folded, "compact": made.network}
    sessions = {
        name: onnx_session(
            export_bytes(network, deployed.few, ".onnx", {}, plain=name == "original")[0]
        )
        for name, network in contenders.items()
    }
    rows = []
    for batch in options.batches:
        images, _ = next(iter(deployed.batches.test()))
        images = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].contiguous()
        feed = {"images": images.numpy()}
        calls = {("torch", name): partial(each, images) for name, each in contenders.items()}
        calls |= {
            ("onnxruntime", name): partial(each.run, None, feed) for name, each in sessions.items()
        }
        with torch.no_grad():
            times = latencies(calls, options.rounds)
        for (runtime, name), found in times.items():
            rows.append({"batch": batch, "runtime": runtime, "network": name} | found)
            print(f"{batch} images, {runtime} {name}: {found['median_ms']:.2f} ms", flush=True)
    return {"threshold": SMALL, "rounds": options.rounds, "rows": rows}


def pruning(judge: Judge, options: argparse.Namespace) -> dict[str, Any]:
    """What Torch-Pruning takes, by its BatchNorm importance (the mean of |gamma| over a group of
    channels that can only go together): every channel below a threshold; and, as its pruner is
    meant to be used, as many channels, the least ones beside the mean of their group."""
    few, rows = judge.deployed.few, []
    for threshold in options.thresholds:
        network = traceable(judge.deployed.network)
        groups = prune_below(network, few, threshold)
        removed = sum(group["removed"] for group in groups)
        if not removed:
            continue
        facts = {"network": "below the threshold", "threshold": threshold}
        rows.append(judge.row(facts | {"groups": groups}, network, network))
        network = traceable(judge.deployed.network)
        prune_least(network, few, removed / sum(group["channels"] for group in groups))
        facts["network"] = "as many, by its pruner"
        rows.append(judge.row(facts | {"widths": widths(network)}, network, network))
    return {"rows": rows}


def traceable(network: nn.Module) -> nn.Module:
    """A copy as Torch-Pruning needs it: it follows gradients."""
    return copy.deepcopy(network).requires_grad_(True).eval()


def prune_below(network: nn.Module, images: Tensor, threshold: float) -> list[dict[str, Any]]:
    """Cut, in place, every channel whose importance is below, but never all of a group; the groups
    (a residual stream is one), and what each lost."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(network, example_inputs=images)
    importance = tp.importance.BNScaleImportance(normalizer=None)
    roots = [nn.Conv2d, nn.Linear]
    found = []
    for group in graph.get_all_groups(ignored_layers=heads(network), root_module_types=roots):
        scores = importance(group).detach()
        lost = torch.nonzero(scores < threshold).flatten().tolist()
        if len(lost) == len(scores):
            lost.remove(int(scores.argmax()))
        norms = {
            dependency.target.name.split(" ")[0]
            for dependency, _ in group
            if isinstance(dependency.layer, nn.BatchNorm2d)
        }
        found.append({"norms": sorted(norms), "channels": len(scores), "removed": len(lost)})
        if lost:
            first = group[0].dep
            graph.get_pruning_group(first.target.module, first.handler, lost).prune()
    return found


def prune_least(network: nn.Module, images: Tensor, share: float) -> None:
    """Cut, in place, a share of all channels by its own pruner over the whole network."""
    import torch_pruning as tp

    importance = tp.importance.BNScaleImportance()
    tp.pruner.BNScalePruner(
        network, images, importance, global_pruning=True, pruning_ratio=share,
        ignored_layers=heads(network),
    ).step()  # fmt: skip


def heads(network: nn.Module) -> list[nn.Module]:
    return [each for each in network.modules() if isinstance(each, nn.Linear)]


def widths(network: nn.Module) -> dict[str, int]:
    named = network.named_modules()
    return {name: each.num_features for name, each in named if isinstance(each, nn.BatchNorm2d)}


PARTS = {"networks": networks, "latency": latency, "pruning": pruning}


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of runs")
    parser.add_argument("--ids", nargs="+", required=True, help="of finished runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=[0.0, 0.001, SMALL, 0.03, 0.1]
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if "pruning" in options.parts and "torch-pruning" not in versions():
        raise SystemExit(
            "Torch-Pruning is not installed: pip install --no-deps torch-pruning, or leave it "
            "out: --parts networks latency"
        )
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.ids:
        run = load_run(name, options.runs)
        judge = Judge(deploy.open_run(run, options.data_dir))
        kept = result.setdefault(run.id, {})
        kept |= {"spec": run.spec.to_dict(), "data": run.folder.inputs["data"]}
        for part in options.parts:
            where = environment(torch.device("cpu")) | {"packages": versions()}
            kept[part] = {"environment": where} | PARTS[part](judge, options)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
