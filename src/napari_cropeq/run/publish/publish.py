"""Publish a model: check it, export its network, try the network, and write the package."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Generator
from importlib import import_module
from pathlib import Path

from napari_cropeq.core.model import Model
from napari_cropeq.core.whole_file import sync_file
from napari_cropeq.errors import ArgumentError, MismatchError, MissingPackageError, OutputExistsError
from napari_cropeq.formats.paths import PARTIAL, check_space, claim, old_of, put_back, remove_ours, replace_folder
from napari_cropeq.run.publish.description import YAML, About, check_about, write_package
from napari_cropeq.run.publish.stack_network import StackNetwork, check_publishable
from napari_cropeq.run.publish.weights import WEIGHTS, Trial, export_network, try_network

__all__ = ["STAGES", "publish"]

logger = logging.getLogger(__name__)

STAGES = ("exporting the network", "trying it", "writing the package")
PACKAGES = ("bioimageio.spec", "onnx", "onnxruntime", "onnxscript")
AGREEMENT = 1e-5  # of the exported network with this package, share of the range of intensities


def publish(
    model: Model, path: Path, about: About | None = None, channel: int = 0, existing: str = "refuse"
) -> Generator[str, None, Trial]:
    """Write a model as a package of bioimage.io; yield each of :data:`STAGES` before it begins.

    Parameters
    ----------
    model : Model
        One that :func:`~.stack_network.check_publishable` does not refuse.
    path : path
        A folder, or a file that ends in ``.zip``. It gets its name only when it is complete.
    about : About, optional
        Name, authors and so on.
    channel : int
        The channel of the image that the model was trained on, whose intensity scale is built in.
    existing : {'refuse', 'overwrite'}
        What to do if there is a package of this name already.

    Returns
    -------
    Trial
        The test of the package.

    Raises
    ------
    ArgumentError, MismatchError, OutputExistsError, AccessError, MissingPackageError
        Before any work starts.
    MismatchError
        If the network in the package does not give the results of this package.
    """
    about = about or About()
    _check(model, path, about, channel, existing)
    work = path.with_name(path.name + PARTIAL)
    claim(work)
    try:
        yield STAGES[0]
        network = StackNetwork(model, channel).eval()
        export_network(network, work / WEIGHTS)
        yield STAGES[1]
        trial = try_network(work / WEIGHTS, network, model, channel)
        if not trial.difference <= AGREEMENT + trial.rounding:
            raise MismatchError(
                f"The exported network differs from the model by {trial.difference:.1e} of the range of intensities, "
                f"more than {AGREEMENT:.0e}.",
                "Report it, with the model file and the versions of torch and onnxruntime.",
            )
        yield STAGES[2]
        package = work / ("package.zip" if _is_zip(path) else "package")
        write_package(model, network, trial, about, work, package)
        for file in package.iterdir() if package.is_dir() else [package]:
            sync_file(file)
        replace_folder(package, path, old_of(work))
        logger.info("Published %s, %.1e of the range from this package's own result", path, trial.difference)
    finally:
        put_back(work, path)  # the old package, if the new one has not got its name
        remove_ours(work)
    return trial


def _check(model: Model, path: Path, about: About, channel: int, existing: str) -> None:
    """Raise before any work if a model cannot be published, or not so."""
    check_publishable(model)
    last = len(model.normalisations) - 1
    if not 0 <= channel <= last:
        raise ArgumentError(
            f"The model has no channel {channel}.",
            "Choose channel 0." if last == 0 else f"Choose a channel from 0 to {last}.",
            setting="channel",
        )
    _check_output(path, existing)
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingPackageError(
                f"Publishing a model needs the package {name}, which is not installed.",
                'Install it with: pip install "napari-cropeq[bioimageio]"',
                setting="bioimageio",
            ) from error
    check_about(about)


def _check_output(path: Path, existing: str) -> None:
    if existing not in ("refuse", "overwrite"):
        raise ArgumentError(f"The value {existing!r} of existing is not known.", "Choose refuse or overwrite.")
    check_space(path.parent, 0)
    if not os.path.lexists(path):
        return
    if existing == "refuse":
        raise OutputExistsError(
            f"{path} exists already.",
            'Choose another name, or replace it with existing="overwrite".',
            setting="existing",
        )
    if path.is_dir() == _is_zip(path) or not _is_package(path):
        raise OutputExistsError(f"{path} exists, and is not a published model.", "Choose another name.")


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _is_package(path: Path) -> bool:
    """Return whether there is a package of bioimage.io, which may be replaced."""
    if path.is_dir():
        return any((path / name).is_file() for name in YAML)
    try:
        with zipfile.ZipFile(path) as file:
            return not set(YAML).isdisjoint(file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
