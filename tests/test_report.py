"""The page and its figures: true sentences, sound HTML, nothing loaded from anywhere."""

import itertools
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from test_analysis import make_run

from gammabeta import analysis, figures, report
from gammabeta.analysis import GroupRow, Spread
from gammabeta.curves import Curve, GammaPool
from gammabeta.errors import InputError, RunError

VOID = {"wbr", "meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects ids, links and loads, and checks that every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "xlink:href", "src", "data", "srcset", "action"):
                (self.links if str(value).startswith("#") else self.loads).append(str(value))
            self.links += re.findall(r"url\((#[^)]+)\)", str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def plain(text: str) -> str:
    """Narrow spaces as spaces, so that a test can be read."""
    return text.replace("\u202f", " ")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Finished runs of three subsets, and one each that failed, stopped and is damaged."""
    root = tmp_path / "runs"
    for seed, (bn, random) in enumerate([(0.92, 0.40), (0.94, 0.42)]):
        make_run(root, "bn", (0.5, bn), seed=seed)
        make_run(root, "random:2", (0.2, random), seed=seed)
        make_run(root, "all", (0.9, 0.98), gamma=(0.4, 0.5, 0.6, 0.7), seed=seed)
    make_run(root, "bn", (0.3, None), status="failed", error="<b>loss</b> is nan", seed=7)
    make_run(root, "output", (0.3,), status=None)
    damaged = make_run(root, "bn", seed=8)
    (damaged.path / "inputs.json").unlink()
    return root


def test_the_page_is_sound_and_self_contained(store: Path, tmp_path: Path) -> None:
    make_run(store, "bn", (0.5,), data="synthetic", epochs=1)
    out = tmp_path / "report.html"
    report.write_report(store, out)
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert set(page.loads) == {"data:,"}  # the empty icon: asks no server for one
    assert "<script" not in text
    assert "http" not in text
    assert "@import" not in text
    assert text.count("<svg viewBox") == 2 * (4 + 4)
    assert sorted(path.name for path in out.parent.iterdir()) == ["report.html", "runs"]


def test_the_same_runs_give_the_same_page(store: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        report.write_report(store, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_unfinished_runs_are_named_with_their_reason(store: Path, tmp_path: Path) -> None:
    report.write_report(store, tmp_path / "report.html")
    text = plain((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "failed after 2 of 2 epochs: &lt;b&gt;loss&lt;/b&gt; is nan" in text
    assert "stopped after 1 of 2 epochs: the same command again resumes it" in text
    assert "inputs.json" in text
    assert "<MNIST>" not in text


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (
            [("bn", 0.931), ("random:2", 0.41), ("all", 0.98)],
            "Training only gamma and beta of cifar_resnet_14 (8 of 100 values, 8.00 %) reaches "
            "93.1 % on 1,000 test digits; the same number of randomly chosen weights reaches "
            "41.0 %; everything reaches 98.0 % (one seed each).",
        ),
        (
            [("bn", 0.931), ("random:3", 0.5)],
            "Training only gamma and beta of cifar_resnet_14 (8 of 100 values, 8.00 %) reaches "
            "93.1 % on 1,000 test digits; 20 randomly chosen weights reach 50.0 % (one seed each).",
        ),
        (
            [("all", 0.98)],
            "Training everything (100 of 100 values, 100 %) reaches 98.0 % on 1,000 test digits "
            "(one seed).",
        ),
        (
            [("output", 0.3), ("bn+output", 0.95)],
            "Training only the subset bn+output of cifar_resnet_14 (20 of 100 values, 20.0 %) "
            "reaches 95.0 % on 1,000 test digits (one seed).",
        ),
        (
            [("none", 0.1), ("gamma", 0.7), ("random:2", 0.4), ("all", 0.98), ("bn", None)],
            "Training only gamma of cifar_resnet_14 (20 of 100 values, 20.0 %) reaches 70.0 % on "
            "1,000 test digits; 8 randomly chosen weights reach 40.0 %; everything reaches 98.0 % "
            "(one seed each); no run of bn has finished yet.",
        ),
        (
            [("random:2", 0.4), ("none", 0.1)],
            "Training only 2 random weights per channel of cifar_resnet_14 (8 of 100 values, "
            "8.00 %) reaches 40.0 % on 1,000 test digits (one seed).",
        ),
        (
            [("none", 0.1), ("gamma", None), ("bn", None)],
            "Training nothing (0 of 100 values, 0 %) reaches 10.0 % on 1,000 test digits "
            "(one seed); nothing that trains has finished yet.",
        ),
        (
            [("bn", None)],
            "No run of cifar_resnet_14 on digits has finished yet: 1 stopped.",
        ),
    ],
)
def test_the_answer_is_true_when_parts_are_missing(
    tmp_path: Path, runs: list[tuple[str, float | None]], expected: str
) -> None:
    made = [
        make_run(tmp_path, name, (0.2, value) if value else (0.2,), status="ok" if value else None)
        for name, value in runs
    ]
    [section] = analysis.sections(made)
    assert plain(report.answer(section)) == expected


def test_captions_are_about_what_has_finished(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, "none", (0.1, 0.1)),
        make_run(tmp_path, "bn", (0.2,), status=None),
    ]
    alone = plain(report.report_html(runs, "a title"))
    assert "the network in which nothing trains is at 10.0 %." in alone
    assert "the smallest subset on top" not in alone
    runs += [make_run(tmp_path, "gamma", (0.3, 0.7)), make_run(tmp_path, "all", (0.8, 0.9))]
    text = plain(report.report_html(runs, "a title"))
    assert "After the last epoch gamma is at 70.0 %, 20.0 points below all." in text
    assert re.search(r"4 under gamma .* and 4 under all ", text)
    assert "the smallest subset on top" in text


def test_one_is_not_many(tmp_path: Path) -> None:
    run = make_run(tmp_path, accuracies=(0.5,), epochs=1)
    session = {"hardware": "a machine", "device": "cpu", "threads": 1, "engine": "eager"}
    run.record_session(session)
    runs = [run, make_run(tmp_path, accuracies=(), epochs=1, status="failed", seed=1)]
    text = report.report_html(runs, "a title")
    for noun in ("epoch", "thread", "finished run"):
        assert f"1 {noun}" in text
        assert f"1 {noun}s" not in text


def test_a_long_subset_wraps_in_tables_and_figures(tmp_path: Path) -> None:
    name = "bn+name:" + "|".join(f"layers[.]{n}[.]conv[12]" for n in range(9)) + "+shortcut"
    text = report.report_html([make_run(tmp_path, name)], "a title")  # a warning would be an error
    Page(text)
    assert text.count(">" + name.replace("+", "+<wbr>") + "<") == 2
    assert re.search(r"\.name[^}]*white-space: normal; overflow-wrap: anywhere", text)
    assert figures.fold("bn+output+shortcut", 16) == "bn+output+\nshortcut"
    assert figures.fold("bn", 16) == "bn"
    folded = figures.fold(name, 16).split("\n")
    assert max(map(len, folded)) <= 16
    assert (folded[0], folded[-1]) == ("bn+", "shortcut")


def test_the_answer_names_the_number_of_seeds(store: Path) -> None:
    runs = [run for run in report.list_runs(store) if run.status == "ok"]
    [section] = analysis.sections(runs)
    assert report.answer(section).endswith("(means over 2 seeds).")
    runs.remove(next(run for run in runs if run.spec["trainable"] == "all"))
    assert report.answer(analysis.sections(runs)[0]).endswith("(means over 1 to 2 seeds).")


def test_a_page_without_any_finished_run(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, accuracies=(), status=None),
        make_run(tmp_path, "all", (), status="failed"),
    ]
    text = report.report_html(runs, "a title")
    assert "has finished yet: 1 failed, 1 stopped" in text
    assert "<figure" not in text
    Page(text)


@pytest.mark.parametrize(("epochs", "shown"), [(160, True), (2, False)])
def test_published_numbers_stand_beside_the_papers_recipe_only(
    tmp_path: Path, epochs: int, shown: bool
) -> None:
    run = make_run(tmp_path, accuracies=(), status=None, data="cifar10", epochs=epochs)
    text = report.report_html([run], "title", {("cifar_resnet_14", "bn"): 0.4777})
    assert ("<td>47.8" in text) is shown
    assert (">Paper<" in text) is shown


def test_runs_of_other_data_are_pointed_out(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, accuracies=(), status=None, seed=seed, data_sha=sha * 32)
        for seed, sha in enumerate(("ab", "cd"))
    ]
    page = report.report_html(runs, "title")
    for mark in ("data abababab", "data cdcdcdcd"):  # a section each
        assert page.count(f"{mark}</h2>") == 1


def test_wrong_requests_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there are no runs in .*: train one first"):
        report.write_report(tmp_path, tmp_path / "report.html")
    run = make_run(tmp_path / "runs", accuracies=(), status=None)
    with pytest.raises(InputError, match="is a folder: name a file"):
        report.write_report([run], tmp_path)
    with pytest.raises(InputError, match="write a share of 1"):
        report.write_report([run], tmp_path / "report.html", published={("a", "bn"): 47.8})
    (tmp_path / "file").write_text("")
    for folder, why in (("file", "file is a file, not a folder"), ("none", "there is no folder")):
        with pytest.raises(InputError, match=why):
            report.write_report([run], tmp_path / folder / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs")
    out = tmp_path / "report.html"
    report.write_report([run], out)
    before = out.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"could not write .*No space left"):
        report.write_report([run], out, title="another")
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0064, "0.64 %"), (1, "100 %"), (0.5, "50.0 %"), (0.000012, "0.0012 %"), (0, "0 %")],
)
def test_shares_keep_two_digits_at_least(value: float, expected: str) -> None:
    assert plain(report.share(value)) == expected


def test_up_to_24_subsets_look_different() -> None:
    names = [f"name:{number}" for number in range(18)]
    names += ["bn", "all", "random:2", "random:4", "random:1", "none"]
    assert len(set(figures.styles(names).values())) == len(names) == 24
    assert len(figures.styles(f"name:{number}" for number in range(30))) == 30


def test_a_subset_looks_the_same_on_every_page() -> None:
    known = ["bn", "all", "none", "output", "random:2", "random:5", "gamma", "beta", "bn+output"]
    known += ["shortcut", "all-bn", "bn+output+shortcut", "output+shortcut", "random:1"]
    crowd = figures.styles([*known, *(f"name:{number}" for number in range(10))])
    for name in known:
        assert figures.styles([name])[name] == crowd[name]
    alone = {f"name:{n}": figures.styles([f"name:{n}"])[f"name:{n}"] for n in range(10)}
    assert len(set(alone.values())) > 4  # the look of a rare one follows from its name
    rare = figures.styles([f"name:{number}" for number in range(8)])  # some of them give way
    for look in (alone, rare):
        assert not set(look.values()) & {crowd[name] for name in known}


def test_sections_of_a_page_share_their_looks(tmp_path: Path) -> None:
    # Two names with one look when alone: where both are, one of them gives way in both sections.
    alike = next(
        [first, second]
        for first, second in itertools.combinations([f"name:{n}" for n in range(30)], 2)
        if figures.styles([first])[first] == figures.styles([second])[second]
    )
    runs = [make_run(tmp_path, name) for name in alike]
    runs.append(make_run(tmp_path, alike[1], data="synthetic"))
    text = report.report_html(runs, "a title")
    looks = re.findall(r'stroke="(#\w+)" stroke-dasharray="([^"]+)"/></svg>(name:\d+)<', text)
    assert len(looks) == 3
    assert len(set(looks)) == 2


def test_histogram_bins_hold_everything_and_centre_on_zero() -> None:
    values = [np.array([-0.7, 0.0]), np.array([0.3, 1.9])]
    edges = figures.histogram_edges(values)
    assert sum(np.histogram(each, edges)[0].sum() for each in values) == 4
    inside = np.flatnonzero((edges[:-1] < 0) & (edges[1:] > 0))[0]
    assert edges[inside] == pytest.approx(-edges[inside + 1])
    assert len(figures.histogram_edges([np.zeros(3)])) == 2


def test_figures_keep_text_and_have_no_date_and_no_global_state() -> None:
    epochs, mean = np.arange(1, 4), np.array([0.1, 0.2, 0.3])
    curve = Curve("name:.*$", 2, True, epochs, mean, mean - 0.05, mean + 0.05)
    look = figures.styles(["name:.*$"])

    def draw() -> str:
        return figures.svg_text(figures.learning_curves([curve], look, chance=0.1))

    before = dict(matplotlib.rcParams)
    text = draw()
    assert text == draw()
    assert dict(matplotlib.rcParams) == before
    assert "name:.*$ (n = 2)</text>" in text  # a dollar sign starts no formula
    assert "dc:date" not in text


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_every_figure_draws_what_it_is_given(width: float) -> None:
    spread = Spread(0.9, 0.85, 0.95, 3)
    groups = [GroupRow("bn", 8, 100, 0.08, 3, 0, spread, None, None, None)]
    pools = [GammaPool("bn", 1, np.array([0.0, 0.001, 0.5, -2.0], "f4"))]
    look = figures.styles(["bn"])
    bars = figures.accuracy_bars(groups, look, width=width).axes[0]
    assert bars.patches[0].get_width() == 0.9
    assert "8 values" in [text.get_text() for text in bars.texts]
    shares = figures.small_gamma_shares(pools, look, width=width).axes[0].lines[-1]
    threshold, share = shares.get_xydata()[80]
    assert (threshold, share) == (pytest.approx(0.01), 0.5)
    density = figures.gamma_histogram(pools, look, width=width).axes[0].patches[0].get_data()
    assert (density.values * np.diff(density.edges)).sum() == pytest.approx(1)


def test_the_title_says_what_the_page_is_about(tmp_path: Path) -> None:
    def title(*subsets: str) -> str:
        root = tmp_path / "-".join(subsets).replace(":", "")
        runs = [make_run(root, subset, (0.5, 0.6)) for subset in subsets]
        found = re.search("<h1>(.*)</h1>", report.report_html(runs))
        assert found is not None
        return found[1]

    assert title("bn", "all") == "Training only gamma and beta"
    assert title("output") == "Training only the classifier"
    assert title("all") == "Training everything"
    assert title("output", "all") == "Training parts of a network"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
def test_a_folder_that_takes_no_file_is_refused_before_the_work():
    with pytest.raises(InputError, match=r"no file can be written in /proc \(.*another folder"):
        report.check_out(Path("/proc/page.html"))
