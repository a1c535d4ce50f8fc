"""The scripts of examples/ run and tell the truth. That of transformers: test_transformers.py."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from test_compact import images, switched_off

from gammabeta import create_model, export
from gammabeta.compact import compact_module, encode, network

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def example(name):
    return runpy.run_path(str(EXAMPLES / name))


def test_own_network(capsys):
    example("own_network.py")["main"](steps=40)
    out = capsys.readouterr().out
    assert "bn+output: 1,866 of 131,754 parameters train" in out
    before, after = (float(each) for each in re.findall(r"test ([\d.]+)%", out))
    assert after > before + 10
    (size,) = re.findall(r"^([\d,]+) bytes; .* the same: True$", out, re.MULTILINE)
    assert int(size.replace(",", "")) < 131_754 * 4 / 40


@pytest.fixture
def compact(capsys):
    """Run compact_and_export.py on few images; what it printed."""

    def run():
        found = example("compact_and_export.py")
        spec = found["SPEC"].replace(epochs=1, subsample=256, test_subsample=50)
        found["main"](spec, threshold=0.1)
        return capsys.readouterr().out

    return run


def test_compact_and_export(compact):
    out = compact()
    (original, small) = (int(each.replace(",", "")) for each in re.findall(r"([\d,]+) param", out))
    assert small < original
    assert re.search(r"conv1 +\d+ -> +\d+ channels", out)
    assert "loaded, it is the same: True" in out
    (apart,) = re.findall(r"bytes of ONNX; in onnxruntime within (\S+) of the original", out)
    assert 0 < float(apart) < 1


@pytest.mark.slow
def test_compact_and_export_without_onnx(compact, monkeypatch):
    monkeypatch.setattr(export, "_there", lambda name: False)
    out = compact()
    assert "loaded, it is the same: True" in out
    assert out.splitlines()[-1].startswith("an .onnx file needs onnx")


def test_the_blocks_of_the_page_on_compaction_run(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "compact.md").read_text(encoding="utf-8")
    alone, anything = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "network", raising=False)
    shutil.copy(network.__file__, tmp_path / "network.py")
    model = switched_off(create_model("cifar_resnet_8_4"))
    about = {"input": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 4.0]}}
    made = compact_module(model, images(), about=about)
    Path("compact.safetensors").write_bytes(encode(made.network))
    pixels = torch.randint(0, 256, (2, 3, 32, 32))
    names = {"torch": torch, "pixels": pixels, "model": model, "images": images()}
    exec(alone, names)
    monkeypatch.delitem(sys.modules, "network")
    shift, scale = (torch.tensor(about["input"][key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        expected = model((pixels / 255 - shift) / scale)
    torch.testing.assert_close(names["logits"], expected, rtol=1e-4, atol=1e-4)
    exec(anything, names)
    assert network.load("smaller.safetensors").output == made.network.output


def test_every_example_is_run_by_a_test():
    named = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(scripts) >= 3
    assert all(f'"{name}"' in named for name in scripts)
