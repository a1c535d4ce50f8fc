"""`gammabeta analyze`: what it prints and writes, what is fresh, and wrong uses of it."""

import dataclasses
import json
import shutil

import pytest
from few import few_images
from probed import trained
from run_folders import files, one_line

import gammabeta
from gammabeta import InputError, RunError
from gammabeta.build import load_dataset
from gammabeta.cli import main
from gammabeta.probe import PROBES, analyze
from gammabeta.probe.make import carry_out, load, named, plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run without probes; `run` is a copy of it."""
    return trained(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made, tmp_path, monkeypatch, quick):
    few_images(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.folder.path, tmp_path / "runs" / made.id)
    return gammabeta.load_run(tmp_path / "runs" / made.id)


def call(capsys, *arguments):
    code = main(["analyze", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_probe_is_made_once_and_says_from_what(run, capsys, monkeypatch):
    code, out, err = call(capsys, run.id[:5], "--device", "cpu")
    assert code == 0, err
    assert [line.split()[1] for line in err.splitlines()] == list(PROBES)
    for word in ("|gamma| < 0.01", "as many random", "dead", "blocks.0.relu2", "clamped below"):
        assert word in out
    folder = run.folder.path / "probe"
    assert out.splitlines()[-1].endswith(f"{run.id}/probe")
    assert files(folder) == sorted(f"{name}.json" for name in PROBES)
    for name in PROBES:
        found = run.folder.probe(name)
        assert (found["probe"], found["run"]) == (name, run.id)
        assert found["made_from"] == {
            "gammabeta": gammabeta.__version__,
            "epoch": 1,
            "images": 0 if name == "gammas" else 50,
            "data_sha256": run.folder.inputs["data"]["sha256"],
        }
        assert found["environment"]["device"] == "cpu"
    # what is there is read, on a machine without the data too
    monkeypatch.setattr("gammabeta.build.load_dataset", lambda *_: pytest.fail("data was read"))
    again = call(capsys, run.id)
    assert again == (0, out, "")


def test_how_much_of_a_probe_is_done_is_told(run):
    todo, told = plan(run, again=True), []
    carry_out(todo, load(todo, None), "cpu", named(todo, lambda *each: told.append(each)))
    assert [what for what, share in told if share == 0] == [f"{run.id}: {name}" for name in PROBES]
    for name, enough in (("clamp", 0.5), ("activity", 1.0)):  # some clamped networks are the same
        shares = [share for what, share in told if what == f"{run.id}: {name}"]
        assert shares == sorted(shares)
        assert enough <= shares[-1] <= 1
        assert len(shares) > 1


def test_what_no_longer_holds_is_made_again(run):
    analyze(run, ["gammas", "clamp"], images=20)
    assert plan(run, ["gammas", "clamp"], images=20).missing == ()
    assert plan(run, ["gammas", "clamp"], images=20, again=True).missing == ("gammas", "clamp")
    assert plan(run, ["gammas", "clamp"], images=30).missing == ("clamp",)
    with pytest.raises(InputError, match=r"images is 10, but clamp of run .* on 20 test images"):
        plan(run, ["clamp"], images=10)
    assert plan(run, ["clamp"], images=10, again=True).missing == ("clamp",)
    found = run.folder.probe("clamp")
    for change in ({"epoch": 2}, {"data_sha256": "0"}):
        run.folder.write_probe("clamp", found | {"made_from": found["made_from"] | change})
        assert plan(run, ["clamp"], images=20).missing == ("clamp",)
    for change in ({"points": []}, {"format": 0}, {"summary": None}, {"made_from": []}):
        run.folder.write_probe("clamp", found | change)
        assert plan(run, ["clamp"], images=20).missing == ("clamp",)
    other = found | {"made_from": found["made_from"] | {"gammabeta": "0"}}
    run.folder.write_probe("clamp", other)
    assert plan(run, ["clamp"], images=20).missing == ()  # another version measures the same
    run.folder.write_probe("clamp", found | {"asked": {}})
    assert plan(run, ["clamp"], images=20).missing == ("clamp",)
    run.folder.write_probe("clamp", found)
    assert plan(run, ["clamp"], images=20).missing == ()


def test_json_and_several_runs(run, capsys, tmp_path):
    other = trained(tmp_path / "runs", seed=1)
    arguments = [run.id, other.id, run.id, "--probe", "gammas,activity", "--images", "10"]
    code, out, _ = call(capsys, *arguments, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["id"] for row in rows] == [run.id, other.id]
    for row in rows:
        assert set(row["probes"]) == {"gammas", "activity"}
        assert row["probes"]["activity"]["images"] == 10
        assert 0 < row["probes"]["activity"]["share"] < 1
        written = json.loads((tmp_path / row["probes"]["activity"]["path"]).read_text())
        assert written["summary"]["share"] == row["probes"]["activity"]["share"]
    code, out, err = call(capsys, *arguments)
    assert (code, err, len(out.splitlines())) == (0, "", 4)
    code, _, err = call(capsys, *arguments, "--again")
    assert (code, len(err.splitlines())) == (0, 4)


def test_an_accuracy_that_is_not_the_recorded_one_is_said(run, capsys):
    path = run.folder.path / "metrics.jsonl"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"test_accuracy": 0.9}) + "\n")
    _, out, _ = call(capsys, run.id, "--probe", "clamp")
    assert f"{run.accuracy:.2%} here, 90.00% when it was trained" in out


# arguments after the run's id, exit code, what the one line must say
WRONG = [
    ("--probe gamas", 2, "--probe: unknown probe 'gamas': did you mean gammas"),
    ("--probe clamp,foo", 2, "known: activity, clamp, gammas, maps"),
    ("--probe ,", 2, "no probe is named"),
    ("--images 0", 2, "--images is 0, but run"),
    ("--images 51", 2, "--images is 51"),
    ("--images few", 2, "'few' is not a whole number"),
    ("--data-dir somewhere", 2, "synthetic needs no files"),
    ("--probe gammas --images 5", 2, "gammas needs no images: leave out --images"),
    ("--probe gammas --data-dir x", 2, "leave out --data-dir"),
    ("--device gpu", 2, "unknown device 'gpu'"),
    ("--runs nosuch", 2, "--runs: there are no runs in nosuch"),
    ("--agian", 2, "did you mean --again"),
    ("zzzz", 2, "no run 'zzzz'"),
]


@pytest.mark.parametrize(("words", "wanted", "message"), WRONG, ids=[words for words, *_ in WRONG])
def test_wrong_uses_write_nothing(run, capsys, monkeypatch, words, wanted, message):
    if "somewhere" in words:
        monkeypatch.undo()  # the real reader of data sets, which knows what needs files
        monkeypatch.setenv("GAMMABETA_OFFLINE", "1")
        words += f" --runs {run.folder.path.parent}"
    before = files(run.folder.path)
    code, out, err = call(capsys, run.id, *words.split())
    assert (code, out) == (wanted, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert files(run.folder.path) == before


def test_no_run_and_no_checkpoint(run, capsys):
    code, _, err = call(capsys)
    assert code == 2
    assert "RUN" in err
    shutil.rmtree(run.folder.path / "checkpoint")
    code, _, err = call(capsys, run.id)
    assert code == 1
    assert f"run {run.id} has no good checkpoint" in err
    with pytest.raises(RunError) as raised:
        analyze(run, ["gammas"])
    assert "no good checkpoint" in one_line(raised)
    assert not (run.folder.path / "probe").exists()


def test_other_data_is_refused(run, monkeypatch):
    other = dataclasses.replace(load_dataset("synthetic"), sha256="f" * 64)
    monkeypatch.setattr("gammabeta.build.load_dataset", lambda *_: other)
    with pytest.raises(InputError, match="began with other data"):
        analyze(run, ["gammas", "activity"])
    assert not (run.folder.path / "probe").exists()
    assert list(analyze(run, ["gammas"])) == ["gammas"]  # which needs none
