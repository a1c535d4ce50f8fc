"""The scripts of examples/ run and tell the truth. That of transformers: test_transformers.py."""

import re
import runpy
from pathlib import Path

import pytest

from gammabeta import export

EXAMPLES = Path(__file__).parents[1] / "examples"


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


def test_compact_and_export_without_onnx(compact, monkeypatch):
    monkeypatch.setattr(export, "_there", lambda name: False)
    out = compact()
    assert "loaded, it is the same: True" in out
    assert out.splitlines()[-1].startswith("an .onnx file needs onnx")


def test_every_example_is_run_by_a_test():
    named = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(scripts) >= 3
    assert all(f'"{name}"' in named for name in scripts)
