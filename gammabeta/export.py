"""A network to one file for other programs: ONNX, or a program of torch.export (.pt2).

Both take any number of images, are run once before they are written and compared with torch, and
say in their metadata how images are normalised (the key "gammabeta", as JSON).
"""

import contextlib
import importlib.util
import io
import itertools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta.disk import check_file, write_files
from gammabeta.errors import InputError, RunError

SUFFIXES = (".onnx", ".pt2")
KEY = "gammabeta"
CLOSE = 1e-4  # the largest difference from torch in fp32, over the largest logit


def check_format(suffix: str) -> None:
    """Raise InputError where a format needs packages that are not there."""
    if suffix not in SUFFIXES:
        raise InputError(f"'{suffix}' is no format: write {' or '.join(SUFFIXES)}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not _there(name)]
    if suffix == ".onnx" and missing:
        raise InputError(
            f"an .onnx file needs {', '.join(missing)}: pip install 'gammabeta[export]', or write "
            "a .pt2 file"
        )


def export_module(
    module: nn.Module,
    images: Tensor,
    path: str | Path,
    about: Mapping[str, Any] | None = None,
    plain: bool = False,
) -> float:
    """Write a network to a file that ends in .onnx or .pt2, whole or not at all; one that is there
    is replaced. Returns how far its logits are from torch's, as `export_bytes` does, and raises
    what that raises, InputError for a path that cannot be, RunError where the disk is full.

    images: (N, C, H, W) fp32, some real ones. about: JSON values that travel with the file.
    """
    path = Path(path)
    check_format(path.suffix)
    check_file(path, f"net{path.suffix}")
    data, difference = export_bytes(module, images, path.suffix, about or {}, plain)
    write_files({path: data})
    return difference


def export_bytes(
    module: nn.Module, images: Tensor, suffix: str, about: Mapping[str, Any], plain: bool = False
) -> tuple[bytes, float]:
    """The file, and how far its logits are from torch's on `images`, over the largest logit.

    images: (N, C, H, W) fp32, some real ones. plain: an .onnx file with the graph as torch has it,
    not simplified. Raises InputError for a network that cannot be traced or a format whose
    packages are missing; RunError where the file computes something else.
    """
    check_format(suffix)
    with _evaluating(module):
        return _export(module, images, suffix, about, plain)


def _export(
    module: nn.Module, images: Tensor, suffix: str, about: Mapping[str, Any], plain: bool
) -> tuple[bytes, float]:
    two = images.new_zeros(2, *images.shape[1:])  # a .pt2 file keeps them: nobody's pictures
    try:
        with _quiet():
            make = _onnx if suffix == ".onnx" else _pt2
            data = make(module, two, json.dumps(dict(about), sort_keys=True), plain)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"this network cannot be exported ({type(error).__name__}: {line}): give a module that "
            "torch.export can trace"
        ) from None
    worst = 0.0
    for some in (images, images[:1]):  # another number of images than it was traced with
        with torch.no_grad():
            truth = module(some)
        found = (_run_onnx if suffix == ".onnx" else _run_pt2)(data, some)
        most = float(truth.abs().max()) or 1.0
        difference = float((found - truth).abs().max()) / most
        if not difference <= CLOSE:
            raise RunError(
                f"the {suffix} file computes something else than torch (off by {difference:.1e}): "
                "nothing was written; please report this network"
            )
        worst = max(worst, difference)
    return data, worst


def _onnx(module: nn.Module, images: Tensor, about: str, plain: bool) -> bytes:
    program = torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        optimize=not plain,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[KEY] = about
    proto = program.model_proto
    graph = proto.graph
    values = (graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *graph.node, *itertools.chain(*values)):
        part.ClearField("metadata_props")  # stack traces: paths of this machine, and kilobytes
    data: bytes = proto.SerializeToString()
    return data


def _pt2(module: nn.Module, images: Tensor, about: str, plain: bool) -> bytes:
    program = torch.export.export(
        module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={KEY: about})
    return file.getvalue()


def onnx_session(data: bytes) -> Any:
    """onnxruntime on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _run_onnx(data: bytes, images: Tensor) -> Tensor:
    (logits,) = onnx_session(data).run(None, {"images": images.contiguous().numpy()})
    return torch.from_numpy(logits)


def _run_pt2(data: bytes, images: Tensor) -> Tensor:
    with _quiet(), torch.no_grad():
        logits: Tensor = torch.export.load(io.BytesIO(data)).module()(images)
    return logits


def _there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; then every part is as it was."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
