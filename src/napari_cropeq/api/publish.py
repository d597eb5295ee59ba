"""Publish a model for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_cropeq.api.arguments import model_of
from napari_cropeq.core.model import Model
from napari_cropeq.core.whole_file import path_of
from napari_cropeq.errors import WrongTypeError
from napari_cropeq.run.publish.description import LICENSE, About
from napari_cropeq.run.publish.publish import publish as published

__all__ = ["publish"]


def publish(
    model: Model | str | Path, path: str | Path, *,
    name: str = "", description: str = "", authors: Sequence[str] = (), license: str = LICENSE,
    cite: Sequence[str] = (), tags: Sequence[str] = (), channel: int = 0, existing: str = "refuse",
) -> Path:  # fmt: skip
    """Write a model as a package of bioimage.io, which other programs run without this one.

    The package has the network as ONNX, test tensors and documentation. The network contains interpolation, both
    planes, and the step that keeps local mean intensities, so it gives the results of this package. For a factor that
    is no integer, only a network of the preset ``paper`` can be published, which then works on an interpolated stack.
    The extra ``bioimageio`` must be installed.

    Parameters
    ----------
    model : Model or path
        The model.
    path : path
        A folder, or a file that ends in ``.zip``.
    name, description : str
        By default, they say which image the model was trained on, and its factor.
    authors : sequence of str
        Names. bioimage.io wants at least one.
    license : str
        Identifier of the SPDX list.
    cite : sequence of str
        DOIs or URLs to cite, in addition to the method and this package.
    tags : sequence of str
        Tags of bioimage.io, such as ``fluorescence-light-microscopy``, in addition to those of the method.
    channel : int
        The channel of the image that the model was trained on, whose intensity scale is built in.
    existing : {'refuse', 'overwrite'}
        What to do if there is a package of this name already.

    Returns
    -------
    pathlib.Path
        The package.

    Raises
    ------
    TypeError, ValueError, OSError
        If an argument is wrong, or the model cannot be published.
    OutputExistsError
        If the path exists and ``existing`` is "refuse", or it is not a published model.
    MissingPackageError
        If the extra ``bioimageio`` is not installed.
    """
    output = path_of("path", path, "Give the name of a folder, or one that ends in .zip.")
    about = About(name, description, _texts("authors", authors), license, _texts("cite", cite), _texts("tags", tags))
    for _ in published(model_of("model", model), output, about, channel, existing):
        pass
    return output


def _texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return a list of texts as a tuple; a single text would be taken for a list of its letters."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise WrongTypeError(
            f"The argument {name} is {values!r}, not a list of texts.", "Give a list, such as ['one'].", setting=name
        )
    return tuple(values)
