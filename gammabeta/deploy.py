"""From a run to files that others use: its network made smaller (gammabeta.compact), what that cost
and saved, and the description that travels with it."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta.build import check_data, load_data
from gammabeta.compact import Compaction, check_threshold, compact_module, encode
from gammabeta.compact.measure import file_size, latencies, operations, parameters
from gammabeta.data.crops import test_resize
from gammabeta.disk import check_file, encode_json, write_files
from gammabeta.engine.batches import Batches
from gammabeta.engine.stream import make_batches
from gammabeta.environment import environment
from gammabeta.errors import InputError, about
from gammabeta.export import export_bytes, onnx_session
from gammabeta.run import Run
from gammabeta.spec import RunSpec
from gammabeta.version import __version__

CHECKED = 8  # images on which the result is checked


@dataclass(frozen=True)
class Deployed:
    """A run's network and its test images. about: JSON values for whoever uses the network."""

    run: Run
    network: nn.Module
    batches: Batches
    about: dict[str, Any]

    @property
    def few(self) -> Tensor:
        """The first test images, (N, C, H, W) fp32, normalised."""
        images, _ = next(iter(self.batches.test()))
        return images[:CHECKED].contiguous()

    def check_threshold(self, threshold: float) -> None:
        """Raise InputError for a threshold with which `compact` would be refused."""
        check_threshold(self.network, threshold)

    def compact(
        self,
        threshold: float,
        keep_idle: bool = False,
        say: Callable[[str], None] = lambda phase: None,
    ) -> Compaction:
        """See `compact_module`."""
        with about("threshold"):
            return compact_module(
                self.network,
                self.few,
                threshold=threshold,
                keep_idle=keep_idle,
                about=self.about | {"threshold": threshold, "idle_gammas_kept": keep_idle},
                say=say,
            )


def open_run(run: Run, data_dir: str | Path | None = None, images: int | None = None) -> Deployed:
    """A trained run with its test images, or the first `images` of them. Raises InputError for data
    that is not the run's, RunError for a run without a checkpoint."""
    if run.spec.statistics == "batch":
        raise InputError(
            f"run {run.id} evaluates with the statistics of each batch (statistics batch), so an "
            "image has no logits of its own: choose a run with track or frozen"
        )
    network = run.network()
    data = load_data(run.spec, data_dir)
    check_data(run.folder, data)
    count = len(data.test.labels)
    if images is not None and not 1 <= images <= count:
        raise InputError(
            f"images is {images}, but run {run.id} has {count:,} test images: write 1 to {count}",
            "images",
        )
    some = dataclasses.replace(data, test=data.test.first(images or count))
    batches = make_batches(some, run.spec, torch.device("cpu"))
    facts = {
        "gammabeta": __version__,
        "run": run.id,
        "model": run.spec.model,
        "input": {
            "layout": "N C H W",
            "colours": "red green blue",
            "pixels": "(value / 255 - mean) / std",
            "mean": list(data.mean),
            "std": list(data.std),
        }
        | _geometry(run.spec, batches)
        | {"made_from": None if data.made_from is None else dict(data.made_from)},
        "output": f"logits of {data.num_classes} classes",
    }
    return Deployed(run, network, batches, facts)


def _geometry(spec: RunSpec, batches: Batches) -> dict[str, Any]:
    """How the run's test images came to their size, and which that is."""
    images, _ = next(iter(batches.test()))
    height, width = images.shape[2:]
    shown: dict[str, Any] = {"height": height, "width": width}
    if spec.image_size:
        short = test_resize(spec.image_size)
        return shown | {
            "resize_short_side": short,
            "interpolation": "bilinear, antialiased, of uint8",
            "centre_crop": spec.image_size,
        }
    return shown | {"resize_short_side": None, "interpolation": None, "centre_crop": None}


@torch.no_grad()
def compare(deployed: Deployed, compaction: Compaction) -> dict[str, Any]:
    """Test accuracy (fp32) of the original, the snapped and the compact network, and the largest
    change of a logit by snapping, alone and over the largest logit."""
    networks = {
        "original": deployed.network,
        "snapped": compaction.snapped,
        "compact": compaction.network,
    }
    correct = dict.fromkeys(networks, 0)
    count, changed, largest = 0, 0.0, 0.0
    for images, labels in deployed.batches.test():
        logits = {name: network(images) for name, network in networks.items()}
        for name, found in logits.items():
            correct[name] += int((found.argmax(1) == labels).sum())
        count += len(labels)
        changed = max(changed, float((logits["snapped"] - logits["original"]).abs().max()))
        largest = max(largest, float(logits["original"].abs().max()))
    return {
        "images": count,
        "test_accuracy": {name: hits / count for name, hits in correct.items()},
        "largest_logit_change_by_snapping": changed,
        "largest_logit": largest,
    }


@torch.no_grad()
def costs(
    deployed: Deployed, compaction: Compaction, batch: int = 32, rounds: int = 15
) -> list[dict[str, Any]]:
    """A row for the original, the folded and the compact network: parameters, operations an image,
    bytes of its file, milliseconds for 1 image and for `batch` (torch, this CPU, these threads)."""
    networks = {
        "original": deployed.network,
        "folded": compaction.folded,
        "compact": compaction.network,
    }
    few = deployed.few
    many = _repeated(few, batch)
    times = {
        size: latencies({name: partial(each, images) for name, each in networks.items()}, rounds)
        for size, images in ((1, few[:1]), (batch, many))
    }
    return [
        {
            "network": name,
            "parameters": parameters(network),
            "operations": operations(network, few[:1]),
            "bytes": file_size(network),
            "latency": {str(size): times[size][name] for size in times},
        }
        for name, network in networks.items()
    ]


def onnx_latencies(
    deployed: Deployed, compaction: Compaction, batch: int = 32, rounds: int = 15
) -> list[dict[str, Any]]:
    """A row for each network, exported: bytes, and milliseconds in onnxruntime on this CPU for 1
    image and for `batch`. The original is written as torch has it, with every BatchNorm."""
    networks = {
        "original": deployed.network,
        "folded": compaction.folded,
        "compact": compaction.network,
    }
    few = deployed.few
    many = _repeated(few, batch)
    files = {
        name: export_bytes(network, few, ".onnx", {}, plain=name == "original")[0]
        for name, network in networks.items()
    }
    sessions = {name: onnx_session(data) for name, data in files.items()}
    times = {}
    for size, images in ((1, few[:1]), (batch, many)):
        feed = {"images": images.numpy()}
        calls = {name: partial(each.run, None, feed) for name, each in sessions.items()}
        times[size] = latencies(calls, rounds)
    return [
        {"network": name, "bytes": len(data)}
        | {"latency": {str(size): found[name] for size, found in times.items()}}
        for name, data in files.items()
    ]


def _repeated(images: Tensor, count: int) -> Tensor:
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count].contiguous()


def summary(compaction: Compaction) -> dict[str, Any]:
    """JSON values: what was switched off, what became of every layer, and the checks."""
    return {
        "switched_off": sum(compaction.switched_off.values()),
        "switched_off_by_layer": compaction.switched_off,
        "put_back": sum(map(len, compaction.put_back.values())),
        "layers": compaction.ledger.layers(),
        "checks": [dataclasses.asdict(check) for check in compaction.checks],
        "notes": compaction.notes,
    }


def ledger_path(out: Path) -> Path:
    return out.with_suffix(".ledger.json")


def write_compact(out: Path, compaction: Compaction, measured: Mapping[str, Any]) -> None:
    """The network, and beside it a ledger with every channel. Both or none."""
    ledger = summary(compaction) | dict(measured) | {"channels": compaction.ledger.rows()}
    ledger["gammas_set_to_zero"], ledger["gammas_put_back"] = compaction.zeros, compaction.put_back
    ledger["environment"] = environment(torch.device("cpu"))
    write_files(
        {ledger_path(out): encode_json(ledger, indent=None), out: encode(compaction.network)}
    )


def check_out(out: Path, suffixes: tuple[str, ...]) -> None:
    """Raise InputError for a file name under which nothing can be written."""
    if out.suffix not in suffixes:
        raise InputError(f"{out} must end in {' or '.join(suffixes)}")
    check_file(out, f"net{suffixes[0]}")
    if out.suffix == ".safetensors" and ledger_path(out).is_dir():
        raise InputError(
            f"the ledger would be {ledger_path(out)}, which is a folder: name another file"
        )
