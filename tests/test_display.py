"""What the command line shows of runs and times."""

import pytest
from stores import write_point

from gammabeta import RunSpec
from gammabeta.analysis import sections
from gammabeta.cli import main
from gammabeta.display import duration
from gammabeta.paper import experiments
from gammabeta.paper.points import collect, views
from gammabeta.paper.scales import SCALES
from gammabeta.report.settings import caption
from gammabeta.store import list_runs


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.6, "8 s"),
        (200, "3 min 20 s"),
        (7_500, "2 h 05 min"),
        (71 * 3600, "71 h 00 min"),
        (73 * 3600, "3 days"),
        (729 * 86_400, "729 days"),
        (2_395_398 * 3600.0, "273.3 years"),
    ],
)
def test_times_are_told_in_units_that_can_be_read(seconds, text):
    assert duration(seconds) == text


def test_runs_that_differ_in_a_field_are_told_apart(tmp_path, capsys):
    write_point(tmp_path, RunSpec(data="digits", epochs=2), 0.3)
    write_point(tmp_path, RunSpec(data="digits", epochs=2, lr=0.01, subsample=256), 0.1)
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    chosen = {line.partition("%")[2].strip() for line in out.splitlines()[1:]}
    assert chosen == {"", "lr=0.01, subsample=256"}


def test_of_equally_many_runs_the_longest_come_first(tmp_path):
    for images, epochs in ((256, 3), (4_000, 2), (4_000, 1)):
        spec = RunSpec(data="digits", epochs=epochs, subsample=images)
        write_point(tmp_path, spec, 0.3, train=images)
    found = [
        (part.recipe["subsample"], part.recipe["epochs"]) for part in sections(list_runs(tmp_path))
    ]
    assert found == [(4_000, 2), (4_000, 1), (256, 3)]


def test_images_that_stand_in_are_named_and_answer_no_question_on_other_data(tmp_path):
    scale = SCALES["smoke"]
    depth, hundred = (experiments()[name] for name in ("depth", "cifar100"))
    for point in collect(depth, [], scale, "fp32", "synthetic").points[:2]:
        write_point(tmp_path, point.spec, 0.1)
    runs = list_runs(tmp_path)
    (view,) = views(depth, runs)
    assert caption(view, "").startswith("Test accuracy on synthetic over depth.")
    assert collect(hundred, runs, scale, "fp32", "synthetic").runs  # they are the same runs
    assert views(hundred, runs) == []
