"""The README's commands and code work, and its numbers are those of results/."""

import json
import re
from pathlib import Path

import pytest

from gammabeta.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = _blocks("python")
    monkeypatch.chdir(tmp_path)
    small = code.replace('data="digits", epochs=2', 'data="synthetic", epochs=1, subsample=128')
    assert small != code
    exec(compile(small, "README.md", "exec"), {})
    assert "1770 of 175258" in capsys.readouterr().out


def test_the_train_command_is_the_papers_recipe(capsys):
    (line,) = [line for line in README.splitlines() if "gammabeta train --model" in line]
    words = line.split("gammabeta ")[1].replace("--data-dir DIR", "").split()
    assert main([*words, "--print-spec", "--json"]) == 0
    spec = json.loads(capsys.readouterr().out)
    assert main(["train", "--print-spec", "--json"]) == 0
    assert spec == json.loads(capsys.readouterr().out)


def test_the_spec_file_can_be_written_and_overridden(tmp_path, monkeypatch, capsys):
    write, read = [line for line in README.splitlines() if re.match("gammabeta .*spec.json", line)]
    monkeypatch.chdir(tmp_path)
    command, name = write.removeprefix("gammabeta ").split(" > ")
    assert main(command.split()) == 0
    spec = capsys.readouterr().out
    Path(name).write_text(spec)
    assert main([*read.removeprefix("gammabeta ").split(), "--print-spec", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(spec) | {"seed": 1}


def test_many_runs_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [
        line for line in README.splitlines() if re.match("gammabeta .*(--seeds|--members)", line)
    ]
    plans = []
    for line in lines:
        words = line.split()[2:]  # what train takes, sweep takes too
        assert main(["sweep", *words, "--dry-run", "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert [len(plan) for plan in plans] == [5, 9]


@pytest.mark.parametrize("target", re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
def test_make_help_names_every_target(target):
    assert target == "help" or f'"make {target} ' in (ROOT / "Makefile").read_text()


def test_both_commands_are_in_the_makefile_and_ci_runs_the_second():
    assert {"make demo", "make test"} <= set(re.findall(r"^make \w+", README, re.MULTILINE))
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_demos_table_is_the_measured_one():
    runs = json.loads((ROOT / "results" / "demo_digits.json").read_text())
    measured = {run["spec"]["trainable"]: run["result"]["test_accuracy"] for run in runs}
    shown = dict(re.findall(r"^(\S+) +[\d,]+ +[\d.]+% +([\d.]+)%$", README, re.MULTILINE))
    assert shown == {name: f"{100 * value:.2f}" for name, value in measured.items()}


def test_constraints_can_be_met_anywhere():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line


def rows_of(table):
    """First cell -> the others, each a list of cells, in the order of the table."""
    text = re.search(f"begin {table} (.*)end {table} ", README, re.DOTALL)[1]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [(each[0], each[1:]) for each in cells if len(each) > 1]


def test_what_random_weights_are_worth_is_said_as_the_table_has_it():
    rows = {name.partition("`")[2][:-1]: cells for name, cells in rows_of("random_weights")[2:]}
    assert "four times as many (`random:8`, one seed) lie among their three seeds" in " ".join(
        README.split()
    )
    low, high = map(float, rows["bn"][3].split("-"))
    reached = {int(name[7:]): float(cells[2]) for name, cells in rows.items() if name != "bn"}
    assert {k for k, each in reached.items() if each < low} == {k for k in reached if k < 8}
    assert low <= reached[8] <= high
    assert {k for k, each in reached.items() if each > high} == {k for k in reached if k > 8}
    everything = next(cells[1] for name, cells in rows_of("cifar10") if name == "ResNet-14, `all`")
    said = f"(`random:576`) reach {reached[576]} %, where everything together (`all`) reaches "
    assert f"{said}{everything} %" in " ".join(README.split())
    counts = {name: int(cells[0].replace(",", "")) for name, cells in rows.items()}
    assert counts["random:2"] == counts["bn"]
    assert counts["random:4"] == 2 * counts["bn"]
    assert counts["random:8"] == 4 * counts["bn"]


def test_what_is_unlike_the_papers_is_said_with_the_numbers_of_the_table():
    rows = {(name, cells[0]): cells[1:] for name, cells in rows_of("cifar10")}
    bn, everything = (rows[f"ResNet-14, `{name}`", "16"][-1] for name in ("bn", "all"))
    accuracy, span = rows["ResNet-14, `none`", "16"][:2]
    said = " ".join(README.split("Two things do not look like the paper")[1].split())
    assert f"{bn} % under `bn` against {everything} % under `all` after 16" in said
    assert f"({rows['ResNet-14, `bn`', '160'][-1]} % under `bn` after 160 epochs" in said
    assert f"below guessing, {accuracy} %, one seed at {span.partition('-')[0]} %" in said
    assert ("ResNet-14, `all`", "160") not in rows  # "we have no `all` of that length"


def test_how_fast_the_loader_is_said_as_it_was_measured():
    groups = json.loads((ROOT / "results" / "loader.json").read_text())["groups"]
    ratios = {
        (*name.split(" / "), group["image_size"]): each["median"]
        for group in groups
        for name, each in group["times_pillow"].items()
    }
    loop = {key: ratio for key, ratio in ratios.items() if key[1] == "pillow"}
    met = {key[::2]: ratio for key, ratio in loop.items() if ratio >= 2}
    assert met.keys() == {("ours, 1 thread", 224), ("ours from a store, 2 threads", 128)}
    missed = [ratio for ratio in loop.values() if ratio < 2]
    both = [ratios["ours, 2 threads", "pillow, 2 threads", size] for size in (224, 128)]
    text = " ".join((ROOT / "README.md").read_text().split())
    said = re.search(
        r"The goal is twice .* by one thread \(([\d.]+) times\) and from a store at 128 "
        r"\(([\d.]+)\), and missed otherwise: ([\d.]+) to ([\d.]+) times\. .* "
        r"ours with two are ([\d.]+) and ([\d.]+) times",
        text,
    )
    known = [*met.values(), min(missed), max(missed), *both]
    assert [float(each) for each in said.groups()] == known
    numbers = ("no", "one", "two", "three", "four", "five", "six")
    page = " ".join((ROOT / "docs" / "performance.md").read_text().split())
    assert f"in a loop, is met in {numbers[len(met)]} of the {numbers[len(loop)]} cases" in page


def test_every_result_is_told_where_they_lie():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\w+\.json) \|", text, re.MULTILINE)
    assert sorted(told) == sorted(path.name for path in (ROOT / "results").glob("*.json"))
