"""The flow goes one way: a module imports only from levels below its own (docs/design.md)."""

import ast
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gammabeta

LEVELS = {
    "errors": 0, "cache": 0, "rng": 0, "version": 0, "language": 0.2, "names": 0.2, "spec": 0.5,
    "wrappers": 0.2, "fingerprint": 0.3, "stops": 0, "launch": 0.1, "small": 0,
    "roles": 1, "sparse": 1, "statistics": 1.1, "subset": 1.2, "gammas": 1.2, "schedule": 1,
    "disk": 1, "locks": 1.1, "data": 1.1, "checkpoint": 1.1, "store": 1.2, "environment": 1,
    "find": 1.25, "processes": 1.1, "tensorfile": 1, "weights": 1.1, "groups": 1, "delta_file": 1.3,
    "delta_check": 1.4, "settings": 1.1, "models": 2, "delta": 2.1, "bank": 2.3, "bank_table": 2,
    "passes": 2, "lean": 2.2, "fused": 2.2, "compact": 2.2,
    "export": 2,
    "engine": 3,
    "train": 4, "build": 4,
    "trained": 4.5, "events": 4.55,
    "run": 5,
    "analysis": 6, "bench": 6, "step_times": 5.9, "cost": 6, "curves": 6.1,
    "jobs": 0.1, "probe": 6, "sweep": 6,
    "deploy": 6,
    "demo": 7, "paper": 7, "tune": 7,
    "figures": 8, "sentences": 8, "report": 8.1, "reproduce": 8.2,
    "display": 8.5, "listen": 8.6, "field_help": 8.65, "parser": 8.65, "arguments": 8.7,
    "commands": 8.9, "cli": 9, "__main__": 10,
}  # fmt: skip
ROOT = Path(gammabeta.__file__).parent


def _modules():
    return [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def _unit(path):
    """The entry of LEVELS that a file belongs to: its own name, or that of its folder."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path):
    """The entries of LEVELS that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gammabeta":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {parts[1] for parts in names if parts[0] == "gammabeta" and len(parts) > 1}
    return {name for name in found if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()}


def test_every_module_has_a_level():
    assert {_unit(path) for path in _modules()} == LEVELS.keys()


def test_every_module_has_one_row_in_the_design():
    text = (ROOT.parent / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    named = [each.rstrip("/").removesuffix(".py") for _, cell in rows
             for each in re.findall(r"`([^`]+)`", cell)]  # fmt: skip
    assert sorted(named) == sorted(LEVELS)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    unit = _unit(path)
    for name in _imports(path) - {unit}:
        assert LEVELS[name] < LEVELS[unit], f"{unit} imports {name}"


def test_the_check_notices_an_import_that_goes_up(tmp_path):
    wrong = tmp_path / "spec.py"
    wrong.write_text("def f():\n    from gammabeta.run import train\n")
    assert _imports(wrong) == {"run"}
    assert LEVELS["run"] > LEVELS["spec"]


@pytest.mark.parametrize("name", ["spec", "language", "names", "errors"])
def test_what_a_run_is_needs_the_standard_library_only(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            assert module.split(".")[0] not in {"torch", "numpy"}, module


def test_the_command_line_answers_without_torch():
    code = """if True:
        import sys
        sys.modules["torch"] = sys.modules["numpy"] = None  # importing them fails
        from gammabeta.cli import main
        for words, expected in (
            ([], 0), (["--version"], 0), (["train", "--help"], 0), (["train", "--hepl"], 2),
            (["sweep", "--members", "lr"], 2), (["trian"], 2),
        ):
            try:
                status = main(words)
            except SystemExit as end:
                status = end.code
            assert status == expected, (words, status)
    """
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_names_are_functions_whatever_was_imported_before():
    code = """if True:
        import gammabeta.run  # which imports gammabeta.train, a module
        import pickle
        import gammabeta
        assert {*gammabeta.__all__} <= {*dir(gammabeta)}
        from gammabeta import *
        for name in gammabeta.__all__:
            assert globals()[name] is getattr(gammabeta, name)
            assert isinstance(globals()[name], str) or callable(globals()[name]), name
        assert gammabeta.lean.convert and gammabeta.data.load_dataset
        assert not any(hasattr(gammabeta, name) for name in ("nothing", "nothing.at_all", "lean.x"))
        assert pickle.loads(pickle.dumps(gammabeta)) is gammabeta
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages([str(ROOT)], "gammabeta."):
        if module.name == "gammabeta.__main__":
            continue
        # triton is made for Linux only; what needs it is imported when it is used.
        if importlib.util.find_spec("triton") is None and "gammabeta.fused" in module.name:
            continue
        importlib.import_module(module.name)


def test_the_public_names():
    assert sorted(gammabeta.__all__) == [
        "Bank", "GammabetaError", "InputError", "Run", "RunError", "RunSpec", "Subset", "Verdict",
        "__version__", "compact_module", "create_model", "export_module", "grid", "load_delta",
        "load_network", "load_run", "progress", "save_delta", "select", "sweep", "train",
        "train_members",
    ]  # fmt: skip
    assert all(hasattr(gammabeta, name) for name in gammabeta.__all__)


def test_source_files_stay_small():
    beside = [ROOT.parent / "tests", ROOT.parent / "benchmarks"]
    for path in [*_modules(), *(each for folder in beside for each in folder.glob("*.py"))]:
        assert len(path.read_text().splitlines()) <= 400, f"{path.name}: two files in one?"
