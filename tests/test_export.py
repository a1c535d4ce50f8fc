"""One file for other programs: what it computes, what it says, and what is refused."""

import io
import json
from pathlib import Path

import onnx
import pytest
import torch
from test_compact import Depends, Mobile, images, switched_off
from torch import nn

from gammabeta import InputError, RunError, create_model, export, export_module
from gammabeta.compact import compact_module
from gammabeta.export import KEY, check_format, export_bytes


def check_private(data):
    """Neither paths of the machine it was made on nor the images it was checked on are in it."""
    for word in ("stack_trace", "site-packages", str(Path(__file__).parents[1])):
        assert word.encode() not in data
    assert images()[0, 0, 0].numpy().tobytes() not in data


def test_pt2_takes_any_number_of_images_and_says_how_they_are_normalised():
    network = compact_module(switched_off(Mobile()), images()).network
    data, difference = export_bytes(network, images(), ".pt2", {"mean": [0.5]})
    assert difference < 1e-6
    check_private(data)
    extra = {KEY: ""}
    program = torch.export.load(io.BytesIO(data), extra_files=extra)
    assert json.loads(extra[KEY]) == {"mean": [0.5]}
    for count in (1, 6):
        some = images(32, count)
        torch.testing.assert_close(program.module()(some), network(some))


@pytest.mark.parametrize("compacted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_onnx_is_one_file_with_any_number_of_images(compacted, tmp_path):
    module = switched_off(create_model("cifar_resnet_8_4"))
    if compacted:
        module = compact_module(module, images()).network
    data, difference = export_bytes(module, images(), ".onnx", {"mean": [0.5]})
    assert difference < 1e-5
    check_private(data)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {each.key: each.value for each in model.metadata_props}[KEY] == '{"mean": [0.5]}'
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (given,) = model.graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [0, 3, 32, 32]
    session = export.onnx_session(data)
    for count in (1, 6):
        some = images(32, count)
        (found,) = session.run(None, {"images": some.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), module(some).detach(), rtol=1e-4, atol=1e-5
        )


def test_a_file_that_computes_something_else_is_refused(monkeypatch):
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    before = export._run_pt2
    monkeypatch.setattr(export, "_run_pt2", lambda data, x: before(data, x) + 0.01)
    with pytest.raises(RunError, match=r"computes something else than torch \(off by"):
        export_bytes(module, images(), ".pt2", {})


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(InputError, match="this network cannot be exported") as error:
        export_bytes(Depends().eval(), images(), ".pt2", {})
    assert "\n" not in str(error.value)


def test_the_module_stays_in_its_modes():
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1)).train()
    module[1].eval()
    export_bytes(module, images(8), ".pt2", {})
    assert [each.training for each in module] == [True, False, True]
    assert module.training
    failing = Depends().train()
    with pytest.raises(InputError, match="cannot be exported"):
        export_bytes(failing, images(8), ".pt2", {})
    assert failing.training


def test_a_file_is_written_in_one_call(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path = tmp_path / "net.pt2"
    assert export_module(module, images(8), str(path), {"a": 1}) < 1e-6
    torch.testing.assert_close(torch.export.load(path).module()(images(8)), module(images(8)))
    with pytest.raises(InputError, match=r"'.pb' is no format: write .onnx or .pt2"):
        export_module(module, images(8), tmp_path / "net.pb")
    with pytest.raises(InputError, match=r"there is no folder .*none"):
        export_module(module, images(8), tmp_path / "none" / "net.pt2")
    assert [each.name for each in tmp_path.iterdir()] == ["net.pt2"]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(export, "_there", lambda name: name == "onnx")
    with pytest.raises(InputError, match=r"needs onnxscript, onnxruntime: pip install 'gammabeta"):
        check_format(".onnx")
    check_format(".pt2")
    with pytest.raises(InputError, match=r"'.pb' is no format: write .onnx or .pt2"):
        check_format(".pb")
