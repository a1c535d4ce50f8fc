"""The page of a store with runs of the paper's experiments, as text; test_report_browser looks."""

import json
import re
import shutil

import pytest
from stores import write_point
from test_analysis import make_run
from test_report import Page, plain

from gammabeta import RunSpec
from gammabeta.figures import WIDE, drawings, write_figures
from gammabeta.paper import SCALES, experiments
from gammabeta.paper.points import other_data, views
from gammabeta.paper.report import report_runs
from gammabeta.report import report_html
from gammabeta.report.answers import answer
from gammabeta.report.origins import published_sources
from gammabeta.report.settings import caption, headline, setting
from gammabeta.store import list_runs

JPEG = "Parquet, 50,000 train and 10,000 test images, JPEG"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The published recipe once and the short one on two networks; never changed."""
    root = tmp_path_factory.mktemp("store") / "runs"
    write_point(root, RunSpec(), 0.477, source=JPEG)
    short = RunSpec(epochs=16)
    for seed, accuracy in enumerate((0.42, 0.44)):
        write_point(root, short.replace(seed=seed), accuracy, source=JPEG)
    write_point(root, short.replace(model="cifar_resnet_32"), 0.52, trained=2464, source=JPEG)
    write_point(root, short.replace(trainable="all"), None, source=JPEG)
    return root


@pytest.fixture(scope="module")
def whole(store):
    """The page of these runs and one of no experiment, with every figure drawn."""
    root = store.parent / "more"
    shutil.copytree(store, root)
    make_run(root, "bn", (0.5, 0.9))
    return plain(report_html(list_runs(root), "a title"))


@pytest.fixture
def page_of(monkeypatch):
    """The page of a store without its figures, which take nearly all of the time."""
    monkeypatch.setattr("gammabeta.report.experiments.drawings", lambda view: [])
    monkeypatch.setattr("gammabeta.report.sections._pictures", lambda *given: [])
    return lambda store: plain(report_html(list_runs(store), "a title"))


def test_each_question_has_answer_figure_table_and_sources(whole):
    text, page = whole, Page(whole)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "<h2>How far do gamma and beta get as the network grows deeper?</h2>" in text
    rise = "rise from 43.0 % to 52.0 % (means over 1 to 2 seeds; one of them has one seed, "
    assert f"{rise}so no spread)." in text
    assert "The published recipe, 160 epochs. The data was JPEG copies of the images" in text
    assert "16 epochs instead of 160, so the published numbers are no target" in text
    row = re.search(r'ResNet-14</td>\s*<td class="main">47.7 %</td>.*?</tr>', text,
                    re.DOTALL)  # fmt: skip
    assert row
    assert "<td>48.1 %</td><td>\N{MINUS SIGN}0.4</td>" in row[0]
    assert "No run yet of bn: ResNet-56, ResNet-110" in text
    assert re.search(r"all, seed 0\): stopped after 16 of 16 epochs", text)
    assert f"sha256 {'ab' * 32}" in text
    assert "read off the main figure of version 1" in text
    # the one number that is not from there
    assert "ResNet-866 under bn: the abstract of versions 2 and 3" in text
    assert "the threshold 0.01 are those of" not in text
    assert "is told of their paper by third parties" in " ".join(text.split())


def test_questions_without_an_answer_are_named_and_not_shown(store, page_of):
    text = page_of(store)
    assert "<h2>How far do they get as it grows wider?</h2>" not in text
    assert re.search(r"How far do they get as it grows wider\? <span[^>]*>1 of 60 points of", text)
    assert "Is it the same without shortcuts?" not in text  # not a run of it
    assert "Other runs" not in text


def test_other_runs_keep_their_sections(whole):
    assert "<h2>Other runs</h2>" in whole
    assert "<h2>cifar_resnet_14 on digits, 2 epochs</h2>" in whole
    assert "cifar_resnet_14 on cifar10" not in whole  # those are above


def test_without_an_experiment_there_is_no_heading_of_one(tmp_path, page_of):
    make_run(tmp_path, "bn", (0.5, 0.9))
    text = page_of(tmp_path)
    for heading in ("Questions still open", "Other runs", "What is missing"):
        assert heading not in text


def test_a_damaged_run_is_told_of_below(store, tmp_path, page_of):
    root = shutil.copytree(store, tmp_path / "runs")
    run = next(run for run in list_runs(root) if run.spec["model"] == "cifar_resnet_32")
    (run.path / "inputs.json").unlink()
    text = page_of(root)
    assert "rise from" not in text
    assert "<h2>Other runs</h2>" in text
    assert f"<code>{run.id}</code>" in text


def test_the_runs_of_the_report_have_a_chapter(tmp_path, page_of):
    found = {run.name: run for run in report_runs()}
    bn, cosine = found["bn-only-adam"], found["full-all-sgd-cosine"]
    write_point(tmp_path, bn.published, 0.43)
    write_point(tmp_path, cosine.intended, 0.6)
    text = page_of(tmp_path)
    Page(text)
    assert "<h2>What did the report on the paper find, and does it hold?</h2>" in text
    assert "Questions still open" not in text
    # bn-bs-1024-crctd-3 was the same recipe
    assert "The report published 24 runs of 21 settings; 1 of these has a counterpart" in text
    assert "the differences are \N{MINUS SIGN}0.7 to +0.5 points" in text
    assert "with gamma and beta alone, 60.0 % with everything." in text
    assert "bn, adam, constant 0.001, 1024</td>" in text
    assert re.search(r"all, sgd, cosine 0.1, 128, as intended</td>\s*<td[^>]*>60.0 %", text)
    assert "Other runs" not in text


def test_a_shortened_ramp_is_named(tmp_path, page_of):
    ramp = next(run for run in report_runs() if run.name == "bn-only-adam-ramups").published
    write_point(tmp_path / "paper", ramp, 0.22)
    write_point(tmp_path / "short", SCALES["short"].apply(ramp), 0.2)
    told = "rises over 5 epochs, as in the report, which is a larger share of 16 epochs."
    assert told in page_of(tmp_path / "short")
    assert told not in page_of(tmp_path / "paper")


def imagenet(tmp_path, model, **given):
    spec = experiments()["imagenet"].only([model], ["bn"]).points[0]
    for scale in ("short", "paper"):
        write_point(tmp_path, SCALES[scale].apply(spec), 0.2, top5=0.5, **given)
    return views(experiments()["imagenet"], list_runs(tmp_path))


def test_other_pictures_are_not_imagenet(tmp_path):
    for view in imagenet(tmp_path, "imagenet_resnet_200", num_classes=10, train=3000):
        assert {point.published_top5 for point in view.points if point.runs} == {None}
        assert "Not ImageNet: 10 classes, 3,000 training images" in " ".join(setting(view))
        assert "10 classes, 3,000 training images" in headline(view)
        assert "Not ImageNet: 10 classes" in caption(view, "top5")
        assert "published number" in caption(view, "top5")
        assert "Thin and grey" not in caption(view, "top5")
        assert answer(view).startswith("Not on ImageNet, but on 10 classes, 3,000 training images")
        top5 = {drawing.key: drawing for drawing in drawings(view)}["top5"].draw(WIDE)
        assert not [line for line in top5.axes[0].lines if line.get_label() == "published"]


def test_imagenet_itself_has_its_published_number_and_no_target_where_shortened(tmp_path):
    found = imagenet(tmp_path, "imagenet_resnet_200", num_classes=1000, train=1_281_160)
    whole, short = found
    for view in found:
        assert {point.published_top5 for point in view.points if point.runs} == {0.32}
        assert "Not ImageNet" not in " ".join([*setting(view), caption(view, "top5")])
        top5 = {drawing.key: drawing for drawing in drawings(view)}["top5"].draw(WIDE)
        assert [line for line in top5.axes[0].lines if line.get_label() == "published"]
        paper, source = published_sources(view)
        assert paper.endswith("(arXiv 2003.00152)")
        assert source.startswith("ResNet-200 under bn, first five guesses: the abstract")
    assert "no target" not in " ".join([*setting(whole), caption(whole, "top5")])
    assert "no target" in " ".join(setting(short))
    assert "Thin and grey: published, of the whole recipe, so no target" in caption(short, "top5")
    assert "Thin and grey" not in caption(whole, "")


def test_images_of_another_size_are_a_changed_recipe(tmp_path):
    spec = experiments()["imagenet"].only(["imagenet_resnet_200"], ["bn"]).points[0]
    write_point(tmp_path, spec.replace(image_size=128), 0.2, top5=0.5, num_classes=1000,
                train=1_281_167)  # fmt: skip
    (view,) = views(experiments()["imagenet"], list_runs(tmp_path))
    assert (view.image_size, len(view.done)) == (128, 1)
    assert {point.published_top5 for point in view.points} == {None}
    assert "changed: images of 128 pixels instead of 224" in " ".join(setting(view))
    assert "128 pixels" in headline(view)
    files = [path.name for path in write_figures(view, tmp_path / "out")]
    assert files[:2] == ["imagenet-128px.json", "imagenet-128px.svg"]
    assert "images of 128 pixels" in (tmp_path / "out" / files[1]).read_text()


def test_files_of_a_piece_of_imagenet_say_so(tmp_path):
    _, short = imagenet(tmp_path, "imagenet_resnet_18", num_classes=10, train=9469)
    files = write_figures(short, tmp_path / "out")
    assert {path.name.partition(".")[0] for path in files} == {
        "imagenet-short-piece-10-classes-9469-images",
        "imagenet-short-piece-10-classes-9469-images-top5",
    }
    told = json.loads(files[0].read_text())
    assert told["other_data"] == ["10 classes, 9,469 training images"]


def test_half_of_imagenet_is_not_imagenet(tmp_path):
    found = imagenet(tmp_path, "imagenet_resnet_200", num_classes=1000, train=640_000)
    assert other_data(found[0].runs) == ["1,000 classes, 640,000 training images"]


def test_the_lead_has_seeds_and_recipe_and_is_of_the_fullest_view(whole):
    """One run of the whole recipe says less than a shortened one on two networks."""
    lead = re.search(r'<p class="lead">(.*?)</p>', whole, re.DOTALL)[1]
    assert "From ResNet-14 to ResNet-32" in lead
    assert "seeds" in lead
    assert "16 epochs instead of 160, JPEG" in lead
    target = re.search(r'href="#([^"]+)"', lead)[1]
    assert f'id="{target}"' in whole


def test_the_lead_of_the_published_recipe_says_so(tmp_path, page_of):
    write_point(tmp_path, RunSpec(), 0.477)
    lead = re.search(r'<p class="lead">(.*?)</p>', page_of(tmp_path), re.DOTALL)[1]
    assert "47.7 % (one seed)." in lead
    assert "The published recipe: <a" in lead


def test_every_figure_is_called_by_question_and_setting(whole):
    labels = re.findall(r'role="img" aria-label="([^"]+)"', whole)
    assert len(labels) == 2 * len(set(labels)) > 4  # each once wide, once narrow
    question = "How far do gamma and beta get as the network grows deeper?"
    assert f"Test accuracy. {question} cifar10, 16 epochs, fp32" in labels
    assert "Where each subset ends. cifar_resnet_14 on digits, 2 epochs" in labels


def test_other_runs_on_a_piece_of_imagenet_are_not_called_imagenet(tmp_path, page_of):
    spec = RunSpec(model="imagenet_resnet_18", data="imagenet", image_size=128, epochs=4)
    write_point(tmp_path, spec, 0.264, num_classes=10, train=3000, test=1000)
    write_point(tmp_path, spec.replace(epochs=5), None, num_classes=10, train=3000, test=1000)
    text = page_of(tmp_path)
    piece = "10 classes, 3,000 training images"
    assert f"<h2>imagenet_resnet_18 on {piece} (not ImageNet), 128 pixels, 4 epochs</h2>" in text
    assert f"reaches 26.4 % on 1,000 test images of 128 pixels (not ImageNet: {piece})" in text
    assert f"No run of imagenet_resnet_18 on {piece} (not ImageNet), 128 pixels has finis" in text
    assert "on imagenet" not in text


def test_other_runs_on_imagenet_itself_keep_its_name(tmp_path, page_of):
    spec = RunSpec(model="imagenet_resnet_18", data="imagenet", epochs=4)
    write_point(tmp_path, spec, 0.264, num_classes=1000, train=1_281_167, test=50_000)
    text = page_of(tmp_path)
    assert "<h2>imagenet_resnet_18 on imagenet, 224 pixels, 4 epochs</h2>" in text
    assert "on 50,000 ImageNet test images of 224 pixels" in text
