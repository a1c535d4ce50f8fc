"""Files of probes that are stale or damaged: never shown, always named, nothing falls with them."""

import json

import numpy as np
import pytest
from stores import write_point, write_probe
from test_figures_measured import activity_probe, clamp_probe, gammas_probe

from gammabeta import RunSpec
from gammabeta.curves import gammas
from gammabeta.figures.measured import clamped, not_read, probed, quiet, values_of
from gammabeta.paper import experiments
from gammabeta.paper.points import views
from gammabeta.probe import read
from gammabeta.report.page import report_html
from gammabeta.report.settings import missing
from gammabeta.store import list_runs

CLAMP = clamp_probe([0.5, 0.5, 0.2], [[0.5], [0.1], [0.1]])
ACTIVITY = activity_probe((200, 199, 0, 0))
GAMMAS = gammas_probe([0.0, 0.5], [0.001, 0.002], [0.3, 0.4])
FOUND = {"clamp": CLAMP, "activity": ACTIVITY, "gammas": GAMMAS}
READERS = {
    "clamp": read.clamp_curve, "activity": read.relu_activity, "gammas": read.layer_values,
    "maps": read.feature_maps,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return write_point(tmp_path, RunSpec(), 0.48, gammas=(0.25, 1.0))


def view_of(root, name):
    [view] = views(experiments()[name], list_runs(root))
    return view


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": 80}, "was made after epoch 80, not 160"),
        ({"data_sha256": "cd" * 32}, "was made with other data"),
    ],
)
def test_a_stale_probe_is_not_read_but_named(run, name, change, why):
    write_probe(run, name, FOUND[name], 10)
    assert READERS[name](run) is not None
    assert (read.images_seen(run, name), read.trouble(run, name)) == (10, None)
    write_probe(run, name, FOUND[name], 10, **change)
    assert READERS[name](run) is read.images_seen(run, name) is read.current(run, name) is None
    assert f"{name}.json of run {run.id} {why}" in read.trouble(run, name)


def test_a_probe_of_another_format_is_not_read(run):
    write_probe(run, "clamp", CLAMP, 10)
    run.write_probe("clamp", run.probe("clamp") | {"format": read.FORMAT + 1})
    assert read.clamp_curve(run) is None
    assert "has format" in read.trouble(run, "clamp")


def test_the_last_checkpoint_goes_before_a_stale_probe(run, tmp_path):
    write_probe(run, "gammas", GAMMAS, epoch=80)
    assert np.array_equal(values_of(run)["bn"], gammas(run)["bn"])
    assert values_of(run)["bn"].tolist() == [0.25, 1.0]
    view = view_of(tmp_path, "gammas")
    assert not_read(view) == [read.trouble(run, "gammas")]
    assert not_read(view)[0] in missing(view)
    write_probe(run, "gammas", GAMMAS)
    assert values_of(run)["bn"].tolist() == [0.0, 0.5]
    assert not_read(view_of(tmp_path, "gammas")) == []


DAMAGED = [
    ("gammas", lambda found: {}),
    ("gammas", lambda found: {"made_from": 1}),
    ("gammas", lambda found: found | {"layers": []}),
    ("gammas", lambda found: found | {"layers": [{"name": "bn"}]}),
    ("gammas", lambda found: found | {"layers": [{"name": "bn", "gamma": {"values": ["x"]}}]}),
    ("gammas", lambda found: found | {"shares": [0.5, 0.5]}),
    ("clamp", lambda found: found | {"points": []}),
    ("clamp", lambda found: found | {"points": [{"threshold": 0.0}]}),
    ("clamp", lambda found: found | {"points": [CLAMP["points"][0] | {"random": 3}]}),
    ("clamp", lambda found: found | {"points": [1, 2]}),
    ("clamp", lambda found: found | {"made_from": found["made_from"] | {"images": None}}),
    ("activity", lambda found: found | {"layers": {}}),
    ("activity", lambda found: found | {"layers": [ACTIVITY["layers"][0] | {"inputs": 0}]}),
    ("activity", lambda found: found | {"layers": [ACTIVITY["layers"][0] | {"low": [1.0]}]}),
    ("maps", lambda found: found | {"pixels": {"shape": [1], "uint8": "AAAA"}}),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_json_that_no_probe_wrote_is_not_read_but_named(run, name, damage):
    write_probe(run, name, FOUND.get(name, {}), 10)
    run.write_probe(name, damage(run.probe(name)))
    assert READERS[name](run) is None or name == "gammas"  # of which the values may be whole
    assert read.images_seen(run, name) is None
    assert f"{name}.json of run {run.id} is damaged" in read.trouble(run, name)


def test_what_is_no_json_is_named_and_what_is_not_there_is_not(run):
    assert read.trouble(run, "clamp") is None
    write_probe(run, "clamp", CLAMP, 10)
    (run.path / "probe" / "clamp.json").write_text("{")
    assert "is damaged" in read.trouble(run, "clamp")


def test_one_damaged_probe_takes_no_other_down(tmp_path):
    """The page is written, a mean is of the run that can be read, and the other is named."""
    good, bad = (write_point(tmp_path, RunSpec(seed=seed), 0.48) for seed in (0, 1))
    for run in (good, bad):
        for name, found in FOUND.items():
            write_probe(run, name, found, 1000)
    for name in FOUND:
        (bad.path / "probe" / f"{name}.json").write_text("{}")
    [point] = view_of(tmp_path, "clamp").done
    assert (clamped(point).n, clamped(point).images) == (1, 1000)
    assert probed(point, "clamp").runs == [good]
    [point] = view_of(tmp_path, "activity").done
    assert quiet(point).n == 1
    page = report_html(list_runs(tmp_path))
    for name in FOUND:
        assert f"{name}.json of run {bad.id} is damaged" in page


def test_the_file_says_no_more_than_json_can(run):
    """Null, for what was no number, is nan, and the probe is whole."""
    layers = [ACTIVITY["layers"][0] | {"high": [None, 1.0, 1.0, 1.0]}]
    write_probe(run, "activity", json.loads(json.dumps({"layers": layers})), 10)
    [layer] = read.relu_activity(run)
    assert np.isnan(layer.high[0])
    assert read.trouble(run, "activity") is None
