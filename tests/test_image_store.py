"""ImageNet in Parquet, and the pre-shrunk store that both forms can be kept in."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import CLASSES, broken, image_folder, photo
from PIL import Image

from gammabeta import InputError, RunSpec, train
from gammabeta.data import Reading, load_dataset
from gammabeta.data.crops import shrunk
from gammabeta.data.decode import Picture
from gammabeta.data.store import StoreSource

SMALL = 16  # image_size; test images are resized to 18


def load(folder, image_size=SMALL, **options):
    return load_dataset("imagenet", folder, Reading(**options), image_size)


@pytest.fixture
def folder(tmp_path):
    """Twelve training images, one PNG and one smaller than 18 pixels among them."""
    folder = image_folder(tmp_path / "images")
    (folder / "train/n01/0.JPEG").write_bytes(photo(1, kind="PNG"))
    (folder / "train/n02/0.JPEG").write_bytes(photo(2, (14, 30)))
    (folder / "train/n03/0.JPEG").write_bytes(photo(3, (12, 12), kind="PNG"))
    return folder


def in_parquet(folder, to, shards=1, validation="validation", struct=True):
    """The same images in Parquet, in the order of their names."""
    to.mkdir()
    for split, title in (("train", "train"), ("val", validation)):
        paths = sorted((folder / split).glob("*/*.JPEG"))
        for shard in range(shards):
            part = paths[shard::shards]
            contents = [path.read_bytes() for path in part]
            images = [{"bytes": each, "path": "x"} for each in contents] if struct else contents
            labels = [CLASSES.index(path.parent.name) for path in part]
            table = pa.table({"image": images, "label": labels})
            pq.write_table(table, to / f"{title}-{shard:05d}-of-{shards:05d}.parquet")
    return to


def by_content(split):
    """What is in a split, whatever the order."""
    count = range(len(split.labels))
    return sorted((int(split.labels[index]), bytes(split.read(index))) for index in count)


@pytest.mark.parametrize(
    "options", [{}, {"shards": 2}, {"validation": "val"}, {"validation": "test", "struct": False}]
)
def test_parquet_holds_the_same_images(folder, tmp_path, options):
    parquet = load(in_parquet(folder, tmp_path / "parquet", **options))
    expected = load(folder)
    assert by_content(parquet.train) == by_content(expected.train)
    assert by_content(parquet.test) == by_content(expected.test)
    assert parquet.num_classes == 3
    assert parquet.source.startswith("ImageNet Parquet, 12 train and 6 test images of 3 classes")
    title = options.get("validation", "validation")
    assert {parquet.test.name(i).partition("-")[0] for i in range(6)} == {title}
    assert len(set(parquet.train.labels[:5].tolist())) > 1


def test_parquet_is_skipped_checked_and_found_in_data(folder, tmp_path):
    (folder / "train/n02/1.JPEG").write_bytes(broken())
    in_parquet(folder, tmp_path / "hub").rename(tmp_path / "hub-data")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub-data").rename(tmp_path / "hub/data")
    data = load(tmp_path / "hub", skip_broken=True)
    assert data.skipped == ("train-00000-of-00001.parquet: row 5",)
    assert len(data.train.labels) == 11


def test_parquet_that_is_wrong(folder, tmp_path, monkeypatch):
    parquet = in_parquet(folder, tmp_path / "parquet", shards=2)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(InputError, match=r"too much to be kept in memory: write .*--image-store"):
        load(parquet)
    monkeypatch.undo()
    (path,) = parquet.glob("train-00001*")
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"train-00001.* is no complete Parquet file"):
        load(parquet)
    table = pa.table({"image": [b"x", None], "label": [0, 1]})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=r"train-00001.*row 1 has no image"):
        load(parquet)
    pq.write_table(pa.table({"image": [b"x"], "label": [-1]}), path)
    with pytest.raises(InputError, match=r"train-00001.*row 0 has label -1"):
        load(parquet)
    path.unlink()
    with pytest.raises(InputError, match="has 1 of 2 shards"):
        load(parquet)


def test_a_store_holds_each_image_shrunk_in_the_same_order(folder, tmp_path):
    plain = load(folder)
    data = load(folder, image_store=tmp_path / "store.arrow")
    for ours, theirs in ((data.train, plain.train), (data.test, plain.test)):
        assert ours.labels.tolist() == theirs.labels.tolist()
        for index in range(len(ours.labels)):
            assert ours.name(index) == theirs.name(index)
            before, after = Picture(theirs.read(index)), Picture(ours.read(index))
            pixels = after.pixels()
            assert not after.by_pillow
            if min(before.height, before.width) > 18:
                expected = shrunk(before, 18)
                assert min(pixels.shape[:2]) == 18
            else:
                expected = before.pixels()
            assert pixels.shape == expected.shape
            if not before.by_pillow and min(before.height, before.width) <= 18:
                assert bytes(ours.read(index)) == theirs.read(index)
                continue
            again = io.BytesIO()  # JPEG costs these tiny images of wild colours a good deal
            Image.fromarray(expected).save(again, "JPEG", quality=95, subsampling="4:2:0")
            assert np.abs(pixels.astype(int) - np.array(Image.open(again))).mean() < 3
    assert "shrunk to 18 pixels as JPEG 95, 2 of them once through Pillow" in data.source
    assert data.sha256 != plain.sha256
    assert len(data.test.labels) == 6


def test_a_store_is_written_once_and_then_enough(folder, tmp_path):
    path = tmp_path / "store.arrow"
    data = load(folder, image_store=path, workers=1)
    content = path.read_bytes()
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["store.arrow"]
    assert load(folder, image_store=path).sha256 == data.sha256
    folder.rename(tmp_path / "gone")
    again = load(None, image_store=path)
    assert (again.sha256, again.source) == (data.sha256, data.source)
    assert path.read_bytes() == content
    (tmp_path / "gone").rename(folder)
    path.unlink()
    load(folder, image_store=path, workers=3)
    assert path.read_bytes() == content
    parquet = in_parquet(folder, tmp_path / "parquet")
    other = load(parquet, image_store=tmp_path / "other.arrow")
    assert by_content(other.train) == by_content(data.train)


def test_a_store_of_many_batches_finds_every_row(folder, tmp_path, monkeypatch):
    whole = load(folder, image_store=tmp_path / "one.arrow")
    monkeypatch.setattr("gammabeta.data.store._AT_ONCE", 5)
    parts = load(folder, image_store=tmp_path / "two.arrow")
    assert [parts.train.read(i).tobytes() for i in range(12)] == [
        whole.train.read(i).tobytes() for i in range(12)
    ]
    assert by_content(parts.test) == by_content(whole.test)


def test_broken_images_and_a_store(folder, tmp_path):
    (folder / "train/n02/1.JPEG").write_bytes(broken())
    path = tmp_path / "store.arrow"
    with pytest.raises(InputError, match=r"train/n02/1.JPEG is no image .*--skip-broken"):
        load(folder, image_store=path)
    assert not path.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["images"]
    data = load(folder, image_store=path, skip_broken=True)
    assert data.skipped == ("train/n02/1.JPEG",)
    assert "1 left out as broken" in data.source
    plain = load(folder, skip_broken=True)
    assert [data.train.name(i) for i in range(11)] == [plain.train.name(i) for i in range(11)]
    with pytest.raises(InputError, match=r"made without 1 broken images such as train/n02/1"):
        load(folder, image_store=path)


def test_a_store_that_does_not_fit(folder, tmp_path):
    path = tmp_path / "store.arrow"
    load(folder, image_store=path)
    with pytest.raises(InputError, match="shrunk to 18 pixels, and image_size 32 needs 37"):
        load(folder, image_size=32, image_store=path)
    assert len(load(folder, image_size=12, image_store=path).train.labels) == 12
    other = image_folder(tmp_path / "other")
    with pytest.raises(InputError, match=r"was made from .*images, not from .*other"):
        load(other, image_store=path)
    (tmp_path / "half.arrow").write_bytes(path.read_bytes()[:-50])
    (tmp_path / "text.arrow").write_text("nothing")
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(str(tmp_path / "foreign.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("half", "text", "foreign"):
        with pytest.raises(InputError, match=f"{name}.arrow is no image store"):
            StoreSource(tmp_path / f"{name}.arrow")
    with pytest.raises(InputError, match="nowhere is no folder: make it"):
        load(folder, image_store=tmp_path / "nowhere/store.arrow")
    with pytest.raises(InputError, match="image_store has no name"):
        Reading(image_store="")


def test_an_interrupt_leaves_no_half_store(folder, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gammabeta.data.store._encoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(folder, image_store=tmp_path / "store.arrow")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["images"]


def test_a_run_from_a_store_is_another_than_from_the_files(folder, tmp_path):
    spec = RunSpec(
        model="imagenet_resnet_18_4", data="imagenet", image_size=SMALL, batch_size=6, epochs=1
    )
    reading = Reading(image_store=tmp_path / "store.arrow")
    run = train(spec, tmp_path / "runs", data_dir=folder, reading=reading, device="cpu")
    assert run.folder.inputs["data"]["source"].startswith("ImageNet store, 12 train")
    again = train(spec, tmp_path / "again", reading=reading, device="cpu")
    assert again.metrics[0]["train_loss"] == run.metrics[0]["train_loss"]
    with pytest.warns(UserWarning, match="2 of the images seen so far"):
        plain = train(spec, tmp_path / "plain", data_dir=folder, device="cpu")
    assert plain.metrics[0]["train_loss"] != run.metrics[0]["train_loss"]
    assert plain.id == run.id
    assert plain.folder.inputs["data"]["sha256"] != run.folder.inputs["data"]["sha256"]
