"""What the layers of a network are and how they are set: whether two compute the same function.

Weights tell nothing of the slope of an activation, of an attribute that scales a branch, or of a
buffer that no state_dict holds. What is compared is what a layer keeps about itself: see `layers`.
"""

import functools
import hashlib
import json
import math
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from gammabeta.fingerprint import digest
from gammabeta.roles import has_statistics
from gammabeta.wrappers import named_modules

Layers = dict[str, dict[str, Any]]

# What a layer keeps about itself and what changes nothing in evaluation mode: for training and
# losses, speed and memory, what is returned beside the outputs, bookkeeping, where it came from.
_WORDS = """
    training momentum inplace label_smoothing problem_type loss_type loss_function
    gradient_checkpointing grad_checkpointing gradient_checkpointing_kwargs
    supports_gradient_checkpointing apply_spec_augment
    tie_word_embeddings all_tied_weights_keys sparse scale_grad_by_freq
    enable_nested_tensor use_nested_tensor mask_check fused_attn memory_efficient
    chunk_size_feed_forward pretraining_tp max_seq_len_cached kernel_config process_group
    is_parallelizable model_parallel device_map hf_device_map tp_size tp_plan pp_plan ep_plan
    output_attentions output_hidden_states return_dict use_return_dict use_cache torchscript
    id2label label2id label_names task_specific_params finetuning_task tokenizer_class
    transformers_version architectures auto_map name_or_path model_tags warnings_issued
    generation_config is_quantized quantization_config quantization_method
    torch_dtype dtype pretrained_cfg default_cfg feature_info gammabeta_recipe forward
    step steps global_step iteration iterations epoch current_epoch calls count counter num_updates
"""
_IGNORED = frozenset(_WORDS.split())
_IGNORED_OF: tuple[tuple[type, str], ...] = (
    (_DropoutNd, "p"),
    (_BatchNorm, "track_running_stats"),  # whether there are any, their buffers tell
    (nn.Embedding, "padding_idx"),
)
# Their next version may keep more, or less, about the same layer.
_LIBRARIES = {"torch", "transformers", "transformers_modules", "timm", "torchvision"}
_FUNCTIONS = types.FunctionType | types.BuiltinFunctionType
_SAMPLES, _LONG = 64, 200


def layers(module: nn.Module) -> Layers:
    """Every module's name -> what it is, in JSON values: the class of one that has no parts (users
    rename the classes of whole networks), the shapes of its parameters, the values of buffers that
    no state_dict holds, and every public attribute that is a number, a text, a function (by its
    name) or a list or dict of such; of a `config` with to_dict() likewise every entry. Left out:
    what is listed above, numbers whose name has "drop" or "init" in it, p of a dropout."""
    found: Layers = {}
    configs: set[int] = set()
    for name, child in named_modules(module):
        about: dict[str, Any] = {}
        if not any(part is not None for part in child._modules.values()):
            kind = type(child).__name__
            about["class"] = "BatchNorm" if "BatchNorm" in kind and "Act" not in kind else kind
        for last, parameter in child._parameters.items():
            if parameter is not None:
                about[f"shape of {last}"] = list(parameter.shape)
        if not has_statistics(child):
            for last in sorted(child._non_persistent_buffers_set):
                buffer = child._buffers.get(last)
                if buffer is not None and not buffer.is_meta:
                    about[f"buffer {last}"] = _sampled(buffer)
        for attribute, value in vars(child).items():
            if any(attribute == word and isinstance(child, kind) for kind, word in _IGNORED_OF):
                continue
            if attribute in _IGNORED:
                continue
            entries = _entries(value)
            if entries is None:
                about |= _told(attribute, attribute, value)
            elif id(value) not in configs:  # parts share it
                configs.add(id(value))
                for key, each in entries.items():
                    about |= _told(f"{attribute}.{key}", key, each)
        found[name] = about
    return found


def difference(here: Layers, there: Layers, module: nn.Module) -> str:
    """The first thing in which two networks differ, in words, or nothing. there: the delta's.

    Of a layer of torch or transformers, and of a config, an entry that only one of them has is
    none: other versions keep other things.
    """
    for name, child in named_modules(module):
        called = f"'{name}'" if name else "the network"
        if name not in there:
            return f"the delta has no {called}"
        ours, theirs = here[name], there[name]
        is_library = type(child).__module__.partition(".")[0] in _LIBRARIES
        for key in {**ours, **theirs}:
            if key in ours and key in theirs:
                if not _is_same(ours[key], theirs[key]):
                    both = f"{_shown(ours[key])} here and {_shown(theirs[key])} in the delta"
                    return f"{called} has {key} {both}"
            elif not is_library and "." not in key:
                where = "here" if key in ours else "in the delta"
                return f"{called} has {key} {where} only"
    return next((f"'{name}' is in the delta only" for name in there if name not in here), "")


def _entries(value: Any) -> Mapping[str, Any] | None:
    """What a configuration holds; None for what is none."""
    method = getattr(value, "to_dict", None)
    if not callable(method) or isinstance(value, nn.Module | type):
        return None
    entries = method()
    return entries if isinstance(entries, Mapping) else None


def _told(key: str, word: object, value: Any) -> dict[str, Any]:
    """What an attribute comes to: nothing, itself, or an entry for each of a dict's."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(word, str) or word.startswith("_") or word in _IGNORED:
        return {}
    if is_number and ("drop" in word or "init" in word):
        return {}
    if isinstance(value, Mapping):
        return {
            inner: told
            for last, each in value.items()
            for inner, told in _told(f"{key}[{last}]", str(last), each).items()
        }
    value = value.item() if isinstance(value, np.generic) else value
    told = _plain(value)
    return {} if told is None else {key: told[0]}


def _plain(value: Any) -> list[Any] | None:
    """[a JSON value that stands for it], or None for what is not looked at."""
    if isinstance(value, float) and not math.isfinite(value):
        return [str(value)]
    if value is None or isinstance(value, bool | int | float):
        return [value]
    if isinstance(value, str):
        return [_short(str(value))]
    if isinstance(value, functools.partial):
        words = (each for pair in value.keywords.items() for each in pair)
        return _plain((value.func, *value.args, *words))
    if isinstance(value, _FUNCTIONS) or (isinstance(value, type) and issubclass(value, nn.Module)):
        return [value.__name__]
    if isinstance(value, tuple | list):
        parts = [_plain(each) for each in value]
        return None if None in parts else [_short([part[0] for part in parts if part])]
    return None


def _short(value: Any) -> Any:
    text = json.dumps(value)
    return value if len(text) <= _LONG else f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _sampled(buffer: Tensor) -> Any:
    """The sha256 of whole numbers; of others shape and 64 values, as processors round apart."""
    if not buffer.is_floating_point():
        return digest(buffer)
    flat = buffer.detach().flatten()
    places = torch.linspace(0, max(len(flat) - 1, 0), min(_SAMPLES, len(flat)))
    values = flat[places.long().to(flat.device)].double().tolist()
    return [str(buffer.dtype), list(buffer.shape), [float(f"{value:.9g}") for value in values]]


def _is_same(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, list) and ours and str(ours[0]).startswith("torch.")):
        return bool(ours == theirs)
    if not isinstance(theirs, list) or ours[1] != theirs[1]:
        return False
    near = 1e-5 if {ours[0], theirs[0]} <= {"torch.float32", "torch.float64"} else 1e-2
    return torch.allclose(torch.tensor(ours[2]), torch.tensor(theirs[2]), near, 1e-7)


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and str(value[0]).startswith("torch."):
        return f"({', '.join(f'{each:.4g}' for each in value[2][:4])}, ...)"
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:56]}..."
