"""Times of steps that are kept: found again under the very same key, and under no other."""

import json
import os
import time

import pytest
import torch

from gammabeta import RunSpec, step_times
from gammabeta.cli import main
from gammabeta.cost import Costs
from gammabeta.step_times import BUSY, find, folder, keep, load, step_key

CPU = torch.device("cpu")
SPEC = RunSpec(model="cifar_resnet_14", data="synthetic", trainable="bn")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(step_times, "cache_folder", lambda: tmp_path / "cache")
    for compiled in (step_times.passes, step_times.direct):
        monkeypatch.setattr(compiled, "why_slow", lambda: None)  # compiles nothing
    kept_busy(monkeypatch, 0.0)


def kept_busy(monkeypatch, share):
    """The machine has as much to run as for this share of its processors, or does not tell."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    if share is None:
        monkeypatch.delattr(os, "getloadavg", raising=False)
    else:
        monkeypatch.setattr(os, "getloadavg", lambda: (4 * share, 0.0, 0.0), raising=False)


def later(monkeypatch, seconds):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)


class Timed:
    """A clock in place of a step: each costs twice the one before."""

    def __init__(self, monkeypatch):
        self.seconds, self.specs, self.said = 0.01, [], []
        monkeypatch.setattr(Costs, "_measure", lambda _, spec: self.measure(spec))

    def measure(self, spec):
        self.specs.append(spec)
        self.seconds *= 2
        return self.seconds

    def estimate(self, spec=SPEC, engine="auto", keep=True):
        return Costs([], engine, device=CPU, say=self.said.append, keep=keep).estimate([spec])


def test_the_second_call_times_nothing_and_says_when_it_was(monkeypatch):
    timed, began = Timed(monkeypatch), time.time()
    first = timed.estimate()
    again = timed.estimate()
    assert len(timed.specs) == len(timed.said) == 1
    assert again.seconds == first.seconds > 0
    assert first.timed is None
    assert began <= again.timed <= time.time()
    assert timed.estimate(keep=False).seconds == pytest.approx(2 * first.seconds)
    assert timed.estimate().seconds == first.seconds  # that one was not kept


@pytest.mark.parametrize("change", [
    {"trainable": "all"}, {"precision": "bf16"}, {"batch_size": 64}, {"model": "cifar_vgg_11"},
    {"optimizer": "adam"},
])  # fmt: skip
def test_another_step_is_timed_itself(monkeypatch, change):
    timed = Timed(monkeypatch)
    timed.estimate()
    assert timed.estimate(SPEC.replace(**change)).timed is None
    assert len(timed.specs) == 2


def elsewhere(monkeypatch, what):
    threads = torch.get_num_threads() + 1
    if what == "hardware":
        monkeypatch.setattr(step_times, "hardware", lambda device: "another processor, 2 cores")
    elif what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "2.99.0")
    elif what == "gammabeta":
        monkeypatch.setattr(step_times, "__version__", "99")
    elif what == "compiler":
        monkeypatch.setattr(step_times.passes, "why_slow", lambda: "no compiler")
    elif what == "half a compiler":
        monkeypatch.setattr(step_times.direct, "why_slow", lambda: "no compiler")
    elif what == "a day":
        later(monkeypatch, 90000)
    elif what == "a clock set back":
        later(monkeypatch, -1000)


@pytest.mark.parametrize("what", ["hardware", "threads", "torch", "gammabeta", "compiler", "a day",
                                  "half a compiler", "a clock set back", "engine"])  # fmt: skip
def test_nothing_is_taken_from_elsewhere(monkeypatch, what):
    timed = Timed(monkeypatch)
    first = timed.estimate()
    assert timed.estimate().seconds == first.seconds
    elsewhere(monkeypatch, what)
    other = timed.estimate(engine="eager" if what == "engine" else "auto")
    assert other.seconds == pytest.approx(2 * first.seconds)
    assert other.timed is None


@pytest.mark.parametrize(("share", "minutes", "kept"), [
    (0.0, 23 * 60, True), (BUSY - 0.01, 23 * 60, True), (BUSY, 11, False), (2.0, 11, False),
    (2.0, 9, True), (None, 23 * 60, True),
])  # fmt: skip
def test_a_time_from_a_busy_machine_is_soon_forgotten(monkeypatch, share, minutes, kept):
    timed = Timed(monkeypatch)
    kept_busy(monkeypatch, share)
    assert load() == pytest.approx(share or 0.0)
    first = timed.estimate()
    later(monkeypatch, 60 * minutes)
    kept_busy(monkeypatch, 0.0)
    again = timed.estimate()
    assert (again.timed is not None) == (again.seconds == first.seconds) == kept
    assert first.load == pytest.approx(share or 0.0)
    assert again.load == (first.load if kept else 0.0)


def test_our_own_steps_are_no_load(monkeypatch):
    """Those of one call follow each other, and would be it for the last of them."""
    timed = Timed(monkeypatch)
    costs = Costs([], device=CPU, keep=True)
    kept_busy(monkeypatch, 1.0)
    assert costs.estimate([SPEC, SPEC.replace(trainable="all")]).load == 0
    assert len(timed.specs) == 2
    later(monkeypatch, 3600)
    assert timed.estimate().timed is not None


def test_an_estimate_is_as_busy_as_its_busiest_step(monkeypatch):
    timed = Timed(monkeypatch)
    kept_busy(monkeypatch, 0.0)
    timed.estimate()
    kept_busy(monkeypatch, 0.7)
    both = Costs([], device=CPU, keep=True).estimate([SPEC, SPEC.replace(trainable="all")])
    assert [spec.trainable for spec in timed.specs] == ["bn", "all"]  # the first was kept
    assert both.load == 0.7


def test_reproduce_says_that_the_machine_was_busy(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Timed(monkeypatch)
    words = ["reproduce", "gamma-beta", "--dry-run"]
    kept_busy(monkeypatch, 1.5)
    for share in (1.5, 0.0):  # the second call finds what the first one kept
        kept_busy(monkeypatch, share)
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "machine was busy just before they were timed (as much to run as for 150% of" in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["load_when_timed"] == 1.5
    later(monkeypatch, 3600)
    assert main(words) == 0
    assert "busy" not in capsys.readouterr().out


def test_a_file_of_another_key_under_our_name_is_not_ours():
    """A home folder on two machines, or one whose hash happens to be the same."""
    key, other = step_key(SPEC, "auto", CPU), step_key(SPEC, "lean", CPU)
    keep(key, 0.5)
    keep(other, 0.25)
    one, two = (step_times._path(each) for each in (key, other))
    one.write_bytes(two.read_bytes())
    assert find(key) is None
    assert find(other).seconds == 0.25


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"[1]", b"\xff", "seconds", "load", "when"])
def test_a_damaged_file_is_written_anew(monkeypatch, damage):
    timed = Timed(monkeypatch)
    timed.estimate()
    [path] = folder().iterdir()
    if isinstance(damage, str):
        values = json.loads(path.read_bytes())
        for wrong in (None, "1", 1e30 if damage == "when" else -1.0, True):
            path.write_text(json.dumps(values | {damage: wrong}))
            assert find(values["key"]) is None
    else:
        path.write_bytes(damage)
    second = timed.estimate()
    assert second.timed is None
    assert timed.estimate().seconds == second.seconds
    assert [each.name for each in folder().iterdir()] == [path.name]


def test_where_nothing_can_be_kept_nothing_is_said(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    timed = Timed(monkeypatch)
    assert timed.estimate().timed is timed.estimate().timed is None
    assert len(timed.specs) == 2

    def no_home():
        raise OSError("there is no home folder")

    monkeypatch.setattr(step_times, "cache_folder", no_home)
    assert timed.estimate().timed is None


def test_reproduce_keeps_them_and_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    timed = Timed(monkeypatch)
    words = ["reproduce", "gamma-beta", "--dry-run"]
    for told in (False, True):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert ("The steps were timed by an earlier call (20" in out) == told
        assert (f"remove {folder()}" in out.replace("\n", " ")) == told
        assert ("timing a step" in err) != told
    assert main([*words, "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert shown["timed_earlier"].endswith(" UTC")
    count = len(timed.specs)
    for path in folder().iterdir():
        path.unlink()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["timed_earlier"] is None
    assert len(timed.specs) == 2 * count
