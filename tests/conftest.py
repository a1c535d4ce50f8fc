"""What all tests share: no network, a cache of their own, one thread each."""

import os
import signal

import pytest
import torch
from hypothesis import settings
from run_folders import INPUTS, SPEC

from gammabeta.store import RunFolder

# Their asserts show values as those of tests do.
pytest.register_assert_rewrite("drawn", "one_line", "switched_networks")

# Without a GPU the Triton kernels run in Triton's interpreter. It looks when triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# What passes here passes for everyone. Others are drawn by --hypothesis-profile=random, and by the
# slow tests.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _cache(tmp_path_factory):
    """One for all workers: what has to be compiled is compiled once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _apart(monkeypatch, _cache):
    monkeypatch.setenv("GAMMABETA_OFFLINE", "1")
    monkeypatch.setenv("GAMMABETA_CACHE", str(_cache))
    monkeypatch.delenv("GAMMABETA_DATA", raising=False)


@pytest.fixture
def quick(monkeypatch):
    """Flush nothing: hundreds of flushes take long on a busy disk. What is flushed, and when, is a
    test of its own."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # still fails for what is not open


@pytest.fixture
def heard():
    """As in a terminal: under nohup, or in the background of a script, signals are ignored."""
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL,
             "SIGHUP": signal.SIG_DFL}  # fmt: skip
    before = {name: signal.signal(getattr(signal, name), each) for name, each in usual.items()}
    yield
    for name, each in before.items():
        signal.signal(getattr(signal, name), each)


@pytest.fixture
def run(tmp_path):
    """An empty run folder."""
    return RunFolder.create(tmp_path / "runs", "abc123", SPEC, INPUTS)


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` need a GPU; tests marked `slow` run when asked for with -m slow."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
