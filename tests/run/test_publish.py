"""Published models: packages of bioimage.io that pass its tests, and give the results of this package."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import napari_cropeq as cq
from conftest import random_network, textured_volume
from napari_cropeq.cli.main import main
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.errors import ArgumentError, MismatchError, MissingPackageError, OutputExistsError, WrongTypeError
from napari_cropeq.run.publish.publish import STAGES, publish
from napari_cropeq.run.publish.stack_network import StackNetwork

AGREEMENT = 1e-5  # share of the range

# bioimageio.spec leaves files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.usefixtures("looked_up"),
]


def a_model(
    kind: str, factor: float, axial: int = 0, correction: float = 0.0, fwhm: float = 0.0, blocks: int = 1
) -> Model:
    """Return a model with random weights, for uint16 images of noise over a gradient."""
    size = [1.0, 1.0, 1.0]
    size[axial] = factor
    network = random_network(kind, 4, blocks, factor).eval().requires_grad_(False)
    acquisition = Acquisition((size[0], size[1], size[2]), axial, fwhm)
    provenance = {"source": {"name": "stack.ome.tif", "shape": [60, 40, 44]}}
    return Model(network, acquisition, [Normalisation(300.0, 5000.0)], {}, provenance, correction=correction)


def a_predictor(model: Model, stack: np.ndarray) -> Predictor:
    scale, correction = model.normalisations[0], model.correction
    return Predictor(model.network, model.acquisition, stack, scale, "both", device="cpu", correction=correction)


def differences(model: Model, stack: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Return how far a result is from this package's own, in shares of the range."""
    predictor = a_predictor(model, stack)
    scale = model.normalisations[0]
    return np.abs(voxels - predictor(Box.whole(predictor.sr_shape))) / (scale.high - scale.low)


NETWORKS = [
    pytest.param(("subpixel", 2.0), (56, 24, 28), id="subpixel-2"),
    pytest.param(("subpixel", 3.0, 0, 2.0), (60, 40, 44), id="subpixel-3-corrected"),
    pytest.param(("subpixel", 4.0, 1, 1.3, 6.0), (32, 64, 28), id="subpixel-4-along-y-wide-slices"),
    pytest.param(("valid", 2.0, 2, 2.0), (32, 30, 64), id="valid-2-along-x-corrected"),
    pytest.param(("valid", 2.433, 1), (24, 20, 24), id="valid-2.433-along-y"),
]


@pytest.mark.parametrize(("arguments", "shape"), NETWORKS)
def test_the_network_gives_our_result_inside_its_halo(arguments: tuple, shape: tuple[int, int, int]) -> None:
    model, stack = a_model(*arguments, blocks=2), textured_volume(shape)
    network, predictor = StackNetwork(model), a_predictor(model, stack)
    given = stack.astype(np.float32) if network.interpolates else predictor.interpolated(Box.whole(predictor.sr_shape))
    with torch.inference_mode():
        voxels = network(torch.from_numpy(given)[None, None])[0, 0].numpy()
    found = differences(model, stack, voxels)
    inside = tuple(slice(halo, length - halo) for halo, length in zip(network.halo, voxels.shape, strict=True))
    assert found[inside].size
    assert found[inside].max() <= AGREEMENT
    border = np.ones(voxels.shape, bool)
    border[inside] = False
    assert not voxels[border].any()


SUBPIXEL, PAPER = ("subpixel", 3.0, 0, 2.0), ("valid", 2.5, 2)


@pytest.fixture(scope="module")
def packages(tmp_path_factory, looked_up) -> dict[str, tuple[Path, Model]]:
    """Return a ZIP file of the command line, in the place of another package, and a folder of the API."""
    folder = tmp_path_factory.mktemp("packages")
    subpixel, paper = a_model(*SUBPIXEL), a_model(*PAPER)
    subpixel.save(folder / "model.safetensors")
    with zipfile.ZipFile(folder / "model.zip", "w") as file:
        file.writestr("rdf.yaml", "type: model")
    command = ["publish", folder / "model.safetensors", "-o", folder / "model.zip", "--overwrite", "--tag", "brain"]
    assert main([str(word) for word in [*command, "--author", "Jane Doe", "--cite", "10.1000/xyz123"]]) == 0
    cq.publish(paper, folder / "model", name="The model of a test", license="MIT", authors=["J. Doe"])
    assert looked_up == []
    assert sorted(path.name for path in folder.iterdir()) == ["model", "model.safetensors", "model.zip"]
    return {"subpixel": (folder / "model.zip", subpixel), "paper": (folder / "model", paper)}


KINDS = ["subpixel", "paper"]


@pytest.mark.parametrize("kind", KINDS)
def test_bioimageio_accepts_it(packages: dict[str, tuple[Path, Model]], kind: str) -> None:
    """It recreates the test output, and runs on other sizes."""
    from bioimageio.core import test_model as tested

    summary = tested(packages[kind][0])
    assert summary.status == "passed", summary.display()
    assert sum("inference" in detail.name for detail in summary.details) == 3


def scripts_of(package: Path) -> list[str]:
    if package.suffix == ".zip":
        text = zipfile.ZipFile(package).read("README.md").decode()
    else:
        text = (package / "README.md").read_text(encoding="utf-8")
    return [block.split("```")[0].replace("PACKAGE", str(package)) for block in text.split("```python\n")[1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_scripts_of_the_readme_give_our_result(
    packages: dict[str, tuple[Path, Model]], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the whole image at once, and in blocks: the stack of the sub-pixel network has fewer slices than a block."""
    package, model = packages[kind]
    stack = textured_volume((12, 170, 50) if kind == "subpixel" else (70, 150, 20))
    tifffile.imwrite(tmp_path / "stack.ome.tif", stack)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    near = (9, 4, 4) if kind == "subpixel" else (0, 0, 6)  # voxels from a border of the image
    inside = tuple(slice(n, -n or None) for n in near)
    for script in scripts_of(package):
        exec(script, names)
        found = differences(model, stack, names["voxels"])
        assert found[inside].max() <= AGREEMENT
    sides = names["sides"]
    assert any(side < length for side, length in zip(sides, names["mirrored"].shape, strict=True)), "several blocks"


def test_what_a_package_says(packages: dict[str, tuple[Path, Model]]) -> None:
    from bioimageio.spec import load_model_description

    said = load_model_description(packages["subpixel"][0], perform_io_checks=False)
    assert said.name == "Axial super-resolution of stack ome tif"
    assert [author.name for author in said.authors] == ["Jane Doe"]
    assert (said.license, said.tags[-1], str(said.cite[-1].doi)) == ("CC-BY-4.0", "brain", "10.1000/xyz123")
    assert "Remedios" in said.cite[0].text
    said = load_model_description(packages["paper"][0], perform_io_checks=False)
    assert (said.name, said.license) == ("The model of a test", "MIT")


REFUSED = [
    pytest.param(a_model("subpixel", 2.5), {}, MismatchError, r"model is 2\.5, .*preset paper", id="subpixel"),
    pytest.param(a_model("valid", 2.5, 0, 2.0), {}, MismatchError, r"local mean .*correction=0", id="correction"),
    pytest.param(a_model("padded", 2.0), {}, MismatchError, r"zero-padded network, whose tiles", id="padded"),
    pytest.param(a_model(*PAPER), {"channel": 1}, ArgumentError, r"no channel 1\. Choose channel 0", id="channel"),
    pytest.param(a_model(*PAPER), {"license": "mine"}, ArgumentError, r"'mine' is not known.*SPDX", id="license"),
    pytest.param(a_model(*PAPER), {"cite": ["a book"]}, ArgumentError, r"'a book' cannot be cited.*DOI", id="cite"),
    pytest.param(a_model(*PAPER), {"name": "x/y"}, ArgumentError, r"fewer than 5 letters", id="name"),
    pytest.param(a_model(*PAPER), {"authors": ["a/b"]}, ArgumentError, r"cannot be 'a/b'", id="author"),
    pytest.param(a_model(*PAPER), {"authors": "Jane"}, WrongTypeError, r"authors is 'Jane', not a list", id="text"),
    pytest.param(a_model(*PAPER), {"existing": "keep"}, ArgumentError, r"'keep' of existing", id="existing"),
]


@pytest.mark.parametrize(("model", "options", "error", "sentence"), REFUSED)
def test_what_cannot_be_published(
    model: Model, options: dict, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        cq.publish(model, tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_kept(packages: dict[str, tuple[Path, Model]], tmp_path: Path) -> None:
    """A package only if asked, and anything else always."""
    package, model = packages["paper"]
    with pytest.raises(OutputExistsError, match=r"model exists already\. .*existing=\"overwrite\""):
        cq.publish(model, package)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "notes.zip").write_text("mine")
    for name in ("notes", "notes.zip"):
        with pytest.raises(OutputExistsError, match=r"exists, and is not a published model\. Choose another name"):
            cq.publish(model, tmp_path / name, existing="overwrite")
    assert (tmp_path / "notes" / "mine.txt").read_text() == (tmp_path / "notes.zip").read_text() == "mine"


def test_an_interrupted_run_leaves_the_old_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("rdf.yaml", "type: model")
    before = (tmp_path / "model.zip").read_bytes()
    steps = publish(a_model(*PAPER), tmp_path / "model.zip", existing="overwrite")
    assert next(steps) == STAGES[0]
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == before


@pytest.mark.parametrize("package", ["onnxscript", "bioimageio.spec"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package}.*pip install \"napari-cropeq\[bioimageio\]\""):
        cq.publish(a_model(*PAPER), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_command_names_its_option(packages: dict[str, tuple[Path, Model]], capsys) -> None:
    package, _ = packages["subpixel"]
    assert main(["publish", str(package.with_name("model.safetensors")), "-o", str(package), "--json"]) == 1
    assert "replace it with --overwrite" in capsys.readouterr().err


def test_a_network_that_differs_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_cropeq.run.publish.publish.AGREEMENT", -1.0)
    with pytest.raises(MismatchError, match=r"differs from the model by .* of the range"):
        cq.publish(a_model(*PAPER), tmp_path / "model")
    assert not list(tmp_path.iterdir())
