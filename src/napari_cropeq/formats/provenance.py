"""What a finished result of this package says about how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tifffile import TiffFile

__all__ = ["NAMESPACE", "read_provenance"]

NAMESPACE = "napari-cropeq"


def read_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return the record that an export writes into its result.

    Parameters
    ----------
    path : Path
        A TIFF file or the folder of an OME-Zarr image. An address has no record that is read.

    Returns
    -------
    dict or None
        source (name, axes, shape, voxel size, ...), model (its fingerprint), factor, axial, planes, exactness,
        training and versions; None where the file is not a result of this package, or cannot be read.
    """
    with suppress(Exception):  # what is wrong with an image is reported when it is opened
        if isinstance(path, str):
            return None
        if path.is_dir():
            record = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"][NAMESPACE]
        else:
            with TiffFile(path) as file:
                xml = str(file.pages.first.description)
            record = _annotation(xml) if NAMESPACE in xml else None  # the text of others can be long
        if isinstance(record, Mapping):
            return dict(record)
    return None


def _annotation(xml: str) -> dict[str, Any] | None:
    """Return the map annotation of this package in the OME-XML of a TIFF file."""
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.endswith("MapAnnotation") and element.get("Namespace") == NAMESPACE:
            return {str(item.get("K")): _value(item.text or "") for item in element.iter() if item.get("K")}
    return None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
