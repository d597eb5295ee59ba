"""torch missing, too old or damaged: one sentence with the cure, in each front end. In processes of their own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from napari_cropeq.torch_check import OLDEST

ROOT = Path(__file__).parents[1]

# What is wrong with torch, before anything is imported; each as a finder that stands before all others.
BREAK = """
import importlib.metadata, sys
version, error = {version!r}, {error}
class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and error is not None:
            raise error
        return None
sys.meta_path.insert(0, Torch())
sys.modules.pop("torch", None)
found = importlib.metadata.version
def of(name):
    if name != "torch":
        return found(name)
    if not version:
        raise importlib.metadata.PackageNotFoundError(name)
    return version
importlib.metadata.version = of
sys.platform = {platform!r}
"""

ABSENT = "ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
DLL = "OSError('[WinError 1114] A DLL initialization routine failed. Error loading c10.dll')"

TORCH = [
    pytest.param(
        {"version": "", "error": ABSENT},
        "The package torch, which trains and applies networks, is not installed. "
        'Install it with: pip install "torch>=2.6"',
        id="missing",
    ),
    pytest.param(
        {"version": "2.5.1+cu124", "error": "None"},
        "torch 2.5.1+cu124 is installed, but 2.6 or newer is needed. "
        'Update it with: pip install --upgrade "torch>=2.6"',
        id="too-old",
    ),
    pytest.param(
        {"version": "2.13.0", "error": "ImportError('libcudart.so.13: cannot open shared object file')"},
        "torch is installed, but cannot be loaded (libcudart.so.13: cannot open shared object file). "
        "Install it again with: pip install --force-reinstall torch",
        id="damaged",
    ),
]


def run(broken: dict[str, str], code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process whose torch is broken."""
    text = BREAK.format(**{"platform": sys.platform, **broken}) + code
    env = os.environ | {"QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, env=env)


@pytest.mark.parametrize(("broken", "sentence"), TORCH)
def test_the_command_line_prints_one_sentence(broken, sentence):
    done = run(broken, "from napari_cropeq.cli.main import main; sys.exit(main(['info', 'a.ome.tif']))")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"cropeq: {sentence}\n")


@pytest.mark.parametrize(("broken", "sentence"), TORCH)
def test_functions_raise_one_sentence(broken, sentence):
    code = """
import napari_cropeq as cq
cq.open_image, cq.Image  # need no torch
try:
    cq.train
except ImportError as error:
    print(type(error).__name__, error, sep="\\n")
"""
    done = run(broken, code)
    assert done.stdout.splitlines() == ["MissingPackageError", sentence], done.stderr


@pytest.mark.parametrize(("broken", "sentence"), TORCH)
def test_the_window_gets_one_sentence(broken, sentence):
    """Each step shows it in its dock; files open without torch."""
    code = """
import npe2
from npe2.manifest.utils import import_python_name
from qtpy.QtWidgets import QApplication
app = QApplication([])
contributions = npe2.PluginManifest.from_file({path!r}).contributions
docks = {{widget.command for widget in contributions.widgets}}
for command in contributions.commands:
    if command.id in docks:
        print(import_python_name(command.python_name)().text().replace("\\n\\n", " "))
    elif command.id != "napari-cropeq.open_address":
        import_python_name(command.python_name)
"""
    done = run(broken, code.format(path=str(ROOT / "src/napari_cropeq/napari.yaml")))
    assert done.stdout.splitlines() == [f"{sentence} Then start napari again."] * 6, done.stderr


@pytest.mark.parametrize(
    ("first", "remedy"),
    [
        ("", "Install it again with: pip install --force-reinstall torch"),
        ("import qtpy.QtCore", 'Start napari with: python -c "import torch; from napari.__main__ import main; main()"'),
    ],
    ids=["alone", "after-qt"],
)
def test_a_library_that_fails_after_qt_on_windows(first, remedy):
    code = f"""
sys.platform = "linux"
{first}
sys.platform = "win32"
from napari_cropeq.torch_check import check_torch
try:
    check_torch()
except ImportError as error:
    print(error)
"""
    done = run({"version": "2.13.0", "error": DLL}, code)
    assert done.stdout.startswith("torch is installed, but cannot be loaded ([WinError 1114] A DLL"), done.stderr
    assert done.stdout.endswith(f"c10.dll). {remedy}\n")


def test_the_command_that_loads_torch_first_can_run():
    from napari.__main__ import main

    assert callable(main)


def test_the_oldest_version_is_that_of_the_metadata():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"torch>={OLDEST[0]}.{OLDEST[1]}" in project["dependencies"]
    assert importlib.metadata.version("torch")
