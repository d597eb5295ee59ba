"""The files of a package: description, network, test tensors and README. bioimageio.spec checks and packs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cropeq import __version__
from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.core.model import Model
from napari_cropeq.errors import ArgumentError, MismatchError
from napari_cropeq.run.publish.readme import readme_of
from napari_cropeq.run.publish.stack_network import STEPS, StackNetwork
from napari_cropeq.run.publish.weights import OPSET, WEIGHTS, Trial

__all__ = ["LICENSE", "YAML", "About", "check_about", "write_package"]

LICENSE = "CC-BY-4.0"
YAML = ("rdf.yaml", "bioimageio.yaml")
"""Names of the description in a package."""

METHOD = (
    "S. W. Remedios, A. Carass, Y.-T. Wu, J. A. Butman, M. Schär, D. L. Pham, Y. Kim and J. L. Prince: the method, "
    "crop-equivariance in self-super-resolution. Medical Imaging with Deep Learning (MIDL), 2022."
)
PROCEEDINGS = "https://proceedings.mlr.press/v172/"
REPOSITORY = "https://github.com/napari-cropeq/napari-cropeq"
TAGS = ("3d", "pytorch", "image-restoration", "super-resolution", "self-supervised", "axial-resolution", "napari")
TOLERANCE = 1e-3  # of other processors, share of the range
SHORTEST, LONGEST = 5, 64  # name, letters


@dataclass(frozen=True)
class About:
    """What a package says of itself, in addition to what the model says.

    Parameters
    ----------
    name, description : str
        By default, they say which image the model was trained on, and its factor.
    authors : tuple of str
        Names; ``anonymous`` by default.
    license : str
        Identifier of the SPDX list.
    cite : tuple of str
        DOIs and URLs, in addition to those of the method and of this package.
    tags : tuple of str
        In addition to those of the method.
    """

    name: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    license: str = LICENSE
    cite: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def check_about(about: About) -> None:
    """Raise ArgumentError if a package cannot say this of itself; bioimageio.spec must be installed."""
    from bioimageio.spec.model.v0_5 import Doi, LicenseId

    if about.name and len(_allowed(about.name)) < SHORTEST:
        raise ArgumentError(
            f"The name {about.name!r} has fewer than {SHORTEST} letters.",
            f"Give a name of {SHORTEST} to {LONGEST} letters, digits, spaces and _ + - ( ).",
            setting="name",
        )
    for author in about.authors:
        if not author.strip() or "/" in author or "\\" in author:
            raise ArgumentError(f"An author cannot be {author!r}.", "Give a name without slashes.", setting="authors")
    if not _is_valid(LicenseId, about.license):
        raise ArgumentError(
            f"The licence {about.license!r} is not known.",
            "Give an identifier of the SPDX list, such as CC-BY-4.0, CC0-1.0 or MIT.",
            setting="license",
        )
    for source in about.cite:
        if not _is_url(source) and not _is_valid(Doi, source):
            raise ArgumentError(
                f"{source!r} cannot be cited.",
                "Give a DOI, such as 10.1000/xyz123, or a URL that starts with https://.",
                setting="cite",
            )


def write_package(model: Model, network: StackNetwork, trial: Trial, about: About, work: Path, package: Path) -> None:
    """Write a package, a folder or a ZIP file, from the network in the folder ``work``.

    Raises
    ------
    MismatchError
        If bioimageio.spec finds the description invalid.
    """
    from bioimageio.spec import (
        InvalidDescr,
        ValidationContext,
        build_description,
        save_bioimageio_package_as_folder,
        save_bioimageio_package_to_stream,
    )

    np.save(work / "stack.npy", trial.input[None, None])
    np.save(work / "result.npy", trial.output[None, None])
    content = _content(model, network, trial, about)
    (work / "README.md").write_text(readme_of(model, network, content["name"]), encoding="utf-8")
    # Links are not looked up: publishing works without a connection.
    links = [PROCEEDINGS, REPOSITORY, *filter(_is_url, about.cite)]
    context = ValidationContext(root=work, known_files=dict.fromkeys(links))
    with _quiet(), context:
        description = build_description(content, context=context)
        if isinstance(description, InvalidDescr):
            wrong = "; ".join(f"{'.'.join(map(str, e.loc))}: {e.msg}" for e in description.validation_summary.errors)
            raise MismatchError(
                f"The model cannot be described as bioimage.io requires: {wrong}.", "Correct it, or report it."
            )
        if package.suffix == ".zip":
            with package.open("wb") as file:
                save_bioimageio_package_to_stream(description, output_stream=file)
        else:
            save_bioimageio_package_as_folder(description, output_path=package)


def _content(model: Model, network: StackNetwork, trial: Trial, about: About) -> dict[str, Any]:
    """Return the description, in the values of its YAML file."""
    from bioimageio.spec.model.v0_5 import ModelDescr

    axial, factor = AXIS_NAMES[network.axial], f"{model.acquisition.factor:.4g}"
    source = str(model.provenance.get("source", {}).get("name") or "a stack")
    data = {"type": "float32"}
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,
        "name": _allowed(about.name or f"Axial super-resolution of {source}"),
        "description": about.description
        or f"Restores the resolution of a stack along {axial}, where slices lie {factor} times further apart than "
        "pixels. Trained by napari-cropeq on one image, without ground truth.",
        "authors": [{"name": name} for name in about.authors or ("anonymous",)],
        "cite": [
            {"text": METHOD, "url": PROCEEDINGS},
            {"text": "napari-cropeq, which has trained the model", "url": REPOSITORY},
            *({"text": "The image or the model", "url" if _is_url(at) else "doi": at} for at in about.cite),
        ],
        "license": about.license,
        "tags": list(dict.fromkeys((*TAGS, *about.tags))),
        "git_repo": REPOSITORY,
        "documentation": {"source": "README.md"},
        "inputs": [
            {
                "id": "stack",
                "description": "slices as acquired" if network.interpolates else "interpolated stack, see README.md",
                "axes": [*_first_axes(), *_input_axes(network)],
                "pad": {"mode": "reflect"},
                "test_tensor": {"source": "stack.npy"},
                "data": data,
            }
        ],
        "outputs": [
            {
                "id": "result",
                "description": "in the intensities of the input; crop the halo, which is zero",
                "axes": [*_first_axes(), *_output_axes(network)],
                "test_tensor": {"source": "result.npy"},
                "data": data,
            }
        ],
        "weights": {"onnx": {"source": WEIGHTS, "opset_version": OPSET, "comment": _made(model)}},
        "config": {"bioimageio": _facts(model, trial)},
    }


def _first_axes() -> list[dict[str, Any]]:
    return [{"type": "batch", "size": 1}, {"type": "channel", "channel_names": ["intensity"]}]


def _input_axes(network: StackNetwork) -> Iterator[dict[str, Any]]:
    for axis, least in enumerate(network.smallest_block):
        axial = axis == network.axial
        # In lateral pixels: the ratio of two lengths would be rounded, and so would the sizes made from it.
        scale = float(network.factor) if axial else 1.0
        size = {"min": least, "step": STEPS[0 if axial else 1]}
        yield {"type": "space", "id": AXIS_NAMES[axis], "size": size, "scale": scale, "concatenable": True}


def _output_axes(network: StackNetwork) -> Iterator[dict[str, Any]]:
    for axis, halo in zip(AXIS_NAMES, network.halo, strict=True):
        yield {"type": "space", "id": axis, "size": {"tensor_id": "stack", "axis_id": axis}, "halo": halo}


def _facts(model: Model, trial: Trial) -> dict[str, Any]:
    """Return what bioimage.io shows of a model, and the tolerance of its test."""
    recipe, seconds = model.training.get("recipe") or {}, model.training.get("seconds")
    tolerance = min(TOLERANCE * float(np.ptp(trial.input)), 0.009 * float(trial.output.max()))  # more is refused
    training = {
        "training_batch_size": recipe.get("batch"),
        "initial_learning_rate": recipe.get("rate"),
        "learning_rate_schedule": recipe.get("schedule"),
        "loss_function": recipe.get("loss"),
        "optimizer": recipe.get("optimiser"),
        "training_duration": None if seconds is None else round(float(seconds) / 3600, 4),  # hours
    }
    return {
        "reproducibility_tolerance": [{"relative_tolerance": TOLERANCE, "absolute_tolerance": max(0.0, tolerance)}],
        "architecture_type": f"unpadded residual, {model.network.kind}",
        "model_parameter_count": sum(weights.numel() for weights in model.network.parameters()),
        "task": "axial super-resolution",
        "training": {name: value for name, value in training.items() if value is not None},
    }


def _made(model: Model) -> str:
    return f"napari-cropeq {__version__}, torch {torch.__version__}, model {model.fingerprint}"


def _allowed(name: str) -> str:
    """Return a name with spaces for the characters that it must not have, and cut."""
    return " ".join(re.sub(r"[^A-Za-z0-9_+\-() ]", " ", name).split())[:LONGEST].strip()


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _is_valid(kind: Any, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log of bioimageio.spec from the terminal: what is wrong is raised."""
    from loguru import logger

    logger.disable("bioimageio")
    try:
        yield
    finally:
        logger.enable("bioimageio")
