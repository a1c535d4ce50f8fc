"""What `make` says while it installs: tools/install.py."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "install.py"


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location("install", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("line", "said"), [
    ("  Downloading torch-2.13.0-cp311-manylinux_2_28_x86_64.whl (899.7 MB)\n",
     "downloading torch-2.13.0 (899.7 MB)"),
    ("Downloading https://a.org/whl/cpu/torch-2.13.0%2Bcpu-cp311-linux.whl (1.2 GB)\n",
     "downloading torch-2.13.0+cpu (1.2 GB)"),
    ("  Using cached numpy-2.4.6-cp311.whl (16.9 MB)\n", "using cached numpy-2.4.6 (16.9 MB)"),
    ("  Downloading rich-15.0.0-py3-none-any.whl (242 kB)\n", None),
    ("Collecting torch>=2.11 (from gammabeta==0.1.0)\n", None),
    ("Requirement already satisfied: pip in somewhere\n", None),
    ("Installing collected packages: a, b, c\n", "installing 3 packages"),
])  # fmt: skip
def test_only_what_is_large_is_told(install, line, said):
    assert install.told(line) == said


def test_it_goes_on_saying_something_and_keeps_the_status(install, capfd):
    script = (
        "import sys, time; print('Downloading torch-2.13.0-x.whl (9.5 MB)', flush=True); "
        "[(time.sleep(0.1), print('Collecting x', flush=True)) for _ in range(8)]; "
        "print('ERROR: no', file=sys.stderr); sys.exit(3)"
    )
    started = time.monotonic()
    assert install.run([sys.executable, "-c", script], silence=0.2) == 3
    out, err = capfd.readouterr()
    first, *others = out.splitlines()
    assert first.strip() == "downloading torch-2.13.0 (9.5 MB)"
    assert 1 <= len(others) <= (time.monotonic() - started) / 0.2
    assert {line.split(",")[0].strip() for line in others} == {"still working"}
    assert "ERROR: no" in err


def test_the_makefile_installs_with_it():
    text = (TOOL.parent.parent / "Makefile").read_text()
    assert "tools/install.py --constraint constraints.txt" in text
