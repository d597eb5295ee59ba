"""Every command and script of README and documentation runs, in a folder with the files that they name.

Trainings run on a few patches instead of minutes, with one factor and one worker. What cannot run here (installing,
``make``, and napari, whose window the tests of the window open) is checked: each extra and each target exists.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

import napari_cropeq
from conftest import textured_volume
from files import a_zarr, with_tail
from napari_cropeq.cli.main import main
from napari_cropeq.cli.parser import make_parser
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.evidence import network_table
from napari_cropeq.formats import open as opening

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUDGETS = {"evaluate": "--patches 4 --set filters=2", "verify": "--patches 4"}
TRAINING = "--patches 32 --filters 4 --set blocks=1"
SHORTER = (
    (r"--factors (\d+)[\d,]*", r"--factors \1"),
    (r"--channel 1", "--channel 0"),
    (r"--channels 0,1 --slab 100 200", "--slab 2 8"),
    (r"--filters \d+", "--filters 4"),
    (r"--workers \d+", "--workers 1"),
    (r"--nthreads \d+", "--nthreads 1"),
    (r"(?<= )/data/", "data/"),  # a folder that only the reader's machine has
    (r"\bminutes=\d+", "patches=32, filters=4, blocks=1"),
)


PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
PAGES |= {
    f"help-{name}-{number}": f"```sh\n{line.strip()}\n```"
    for action in make_parser()._actions
    if isinstance(action.choices, dict)
    for name, command in action.choices.items()
    for number, line in enumerate((command.epilog or "").splitlines())
    if line.startswith("  cropeq ")
}
"""The pages, and the examples that ``cropeq COMMAND --help`` shows."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the files that the pages name: one volume, one truth, and models."""
    folder = tmp_path_factory.mktemp("files")
    textured = textured_volume((40, 66, 68)).astype(np.uint16)
    voxel = {f"PhysicalSize{axis}": 2.0 for axis in "ZYX"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    for name in ("truth.ome.tif", "isotropic.ome.tif", "one.ome.tif", "truths/brain.ome.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(folder / name, textured, metadata={"axes": "ZYX"} | voxel, ome=True)
    for name in ("isotropic.nii.gz", "truths/brain_iso.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(textured.T, np.diag((2.0, 2.0, 2.0, 1.0))), folder / name)
    stack = textured_volume((8, 80, 88)).astype(np.uint16)
    for name in ("stack.ome.tif", "one.tif", "data/a.ome.tif", "scans/a.ome.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(folder / name, stack, metadata={"axes": "ZYX"} | voxel | {"PhysicalSizeZ": 4.0}, ome=True)
    tifffile.imwrite(folder / "stack.tif", stack)
    np.save(folder / "stack.npy", stack)
    a_zarr(folder / "data" / "b_raw.ome.zarr", size=(4.0, 2.0, 2.0), shape=(8, 72, 76))
    with contextlib.chdir(folder):
        for command in (
            f"cropeq train stack.ome.tif -o stack.safetensors {TRAINING}",
            f"cropeq train stack.ome.tif -o padded.safetensors --set network=padded --set blocks=2 {TRAINING}",
            "cropeq export stack.ome.tif -m stack.safetensors -o stack_SR.ome.zarr --planes x",
            "cropeq export stack.ome.tif -m stack.safetensors -o stack_SR.ome.tif --planes x",
        ):
            assert main(shlex.split(command)[1:]) == 0
    model = Model.load(folder / "stack.safetensors")
    with_tail(model).save(folder / "stack.safetensors")  # a training on more patches learns the expected error
    return folder


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each snippet of a page, in order; of commands, each one."""
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "python":
            yield language, block
            continue
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"(^|\s)#.*", "", line).strip()
            if command:
                yield language, command


def shorter(snippet: str) -> str:
    """Return a command or a script that trains on a few patches instead of minutes, with less of everything."""
    for pattern, less in SHORTER:
        snippet = re.sub(pattern, less, snippet)
    if not snippet.startswith("cropeq ") or "--settings" in snippet:
        return snippet
    name = snippet.split()[1]
    few = TRAINING if name == "train" or "--train " in snippet else BUDGETS.get(name, "")
    less = re.sub(r"--(minutes|patches) [\d,]+", few, snippet)
    return f"{less} {few}" if few and less == snippet and name in ("train", "export", "evaluate") else less


def remove_output(words: list[str]) -> None:
    """Remove what an earlier command of the page, or of the fixture, has written under the name of the output."""
    given = next((word for word, before in zip(words[1:], words, strict=False) if before in ("-o", "--out")), None)
    if given is None or ("--resume" in words and words[1] != "train"):
        return
    shutil.rmtree(given, ignore_errors=True)
    Path(given).unlink(missing_ok=True)


def check_install(words: list[str]) -> None:
    """Check that what is installed exists: extras of this package, and others that it knows."""
    known = " ".join([*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())])
    for word in words[words.index("install") + 1 :]:
        name, _, extras = word.rstrip("]").partition("[")
        if name in ("napari-cropeq", "."):
            assert set(extras.split(",")) - {""} <= set(PROJECT["optional-dependencies"]), word
        elif not word.startswith("-"):
            assert re.search(rf"\b{re.split('[=<>!]', name)[0]}\b", known), word


@pytest.fixture
def registries() -> Iterator[None]:
    """Undo what a page adds to the networks and the readers."""
    before = [(registry, dict(registry)) for registry in (NETWORKS, opening._READERS)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


class Background:
    """Programs that run until the end of the page; :attr:`address` is the scheduler's."""

    def __init__(self) -> None:
        self.address = ""
        self._started: list[subprocess.Popen[str]] = []

    def start(self, words: list[str]) -> None:
        """Start ``dask scheduler`` or ``dask worker``."""
        here = [] if words[1] == "worker" else ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        program = [sys.executable, "-m", "dask", *words[1:], *here]
        started = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
        self._started.append(started)
        if not self.address:
            lines = iter(started.stderr.readline, "")
            self.address = next(found[0] for line in lines if (found := re.search(r"tcp://\S+", line)))

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def background() -> Iterator[Background]:
    programs = Background()
    yield programs
    programs.end()


def run(command: str, background: Background, capsys: pytest.CaptureFixture[str]) -> None:
    address = background.address or "tcp://10.0.0.1:8786"
    words = shlex.split(os.path.expandvars(shorter(command).replace("tcp://10.0.0.1:8786", address)))
    match words[0]:
        case "cropeq":
            remove_output(words)
            with contextlib.suppress(SystemExit):
                assert main(words[1:]) == 0, (shorter(command), capsys.readouterr().err)
        case "dask":
            background.start(words)
        case "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), command
        case "pip":
            check_install(words)
        case "napari":
            assert entry_points(group="console_scripts", name="napari"), command
        case "python":
            assert words[1] == "-m" or (ROOT / words[1]).is_file(), command
        case _:
            pytest.fail(f"{command!r} is neither run nor checked")


@pytest.mark.usefixtures("looked_up", "registries")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # bioimageio.spec leaves files to the collector
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if any(steps(text))])
def test_snippets_of_a_page_run(page, files, tmp_path, monkeypatch, capsys, background):
    """In this process; test_cli runs the program itself."""
    folder = tmp_path / "here"
    named = set(re.findall(r"[\w.]+", PAGES[page]))
    unnamed = [path.name for path in files.iterdir() if path.name not in named]
    shutil.copytree(files, folder, ignore=shutil.ignore_patterns(*unnamed))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setattr(network_table, "SECONDS", 0.1)
    names: dict[str, object] = {"__name__": "__main__", "cq": napari_cropeq, "model": "stack.safetensors"}
    for language, snippet in steps(PAGES[page]):
        if language == "sh":
            run(snippet, background, capsys)
        else:
            exec(shorter(snippet), names)
