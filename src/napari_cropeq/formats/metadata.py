"""Metadata of an image: voxel size, unit, position, channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from napari_cropeq.errors import ArgumentError

PIXEL = "pixel"
_METRES = {
    "kilometer": Fraction(1000),
    "meter": Fraction(1),
    "centimeter": Fraction(1, 10**2),
    "millimeter": Fraction(1, 10**3),
    "micrometer": Fraction(1, 10**6),
    "nanometer": Fraction(1, 10**9),
    "angstrom": Fraction(1, 10**10),
    "picometer": Fraction(1, 10**12),
    "inch": Fraction(254, 10**4),
}
_SHORT = {
    "km": "kilometer",
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "um": "micrometer",
    "\N{MICRO SIGN}m": "micrometer",
    "\N{GREEK SMALL LETTER MU}m": "micrometer",
    "\\u00b5m": "micrometer",  # ImageJ escapes what is not ASCII
    "micron": "micrometer",
    "nm": "nanometer",
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": "angstrom",  # lower case of OME's unit
    "pm": "picometer",
    "in": "inch",
}
TIME_UNITS = {"day": "d", "hour": "h", "minute": "min", "second": "s", "millisecond": "ms", "microsecond": "µs"}


@dataclass(frozen=True)
class Metadata:
    """What a file stores about its voxels; the defaults mean that it stores nothing."""

    voxel_size: tuple[float, float, float] | None = None  # (z, y, x) in `unit`
    unit: str = PIXEL
    translate: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (z, y, x) of the first voxel's centre, in `unit`
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str | None, ...] = ()  # '#rrggbb'
    time_step: float = 1.0  # in `time_unit`
    time_unit: str = PIXEL  # 'second', 'minute', ...


@dataclass(frozen=True)
class Stored:
    """An image as stored in its file, before its axes are put in order."""

    array: Any  # has shape and dtype; slicing reads only the slice
    axes: str  # one lower-case letter per axis, in the file's order
    chunks: tuple[int, ...]  # best size of a read, per axis
    metadata: Metadata
    coarser: tuple[Stored, ...] = ()  # the coarser levels that can be read
    missing: float | None = None  # what voxels of missing planes are read as; None if there are none
    scene: str = ""  # which image of the file this is: its name, or its path in a Zarr group; "" if there is only one
    scenes: tuple[str, ...] = ()  # names or paths of all images of the file; empty if there is only one


def scene_number(scene: str | int | None, scenes: Sequence[str], file: str) -> int:
    """Return the number of the scene that is chosen by its name or number; 0, the first, by default.

    Raises
    ------
    ArgumentError
        If there is no such scene.
    """
    if scene is None or scene in scenes:
        return 0 if scene is None else list(scenes).index(str(scene))
    number = int(scene) if str(scene).isdecimal() else -1
    if not 0 <= number < max(1, len(scenes)):
        known = f"Its scenes are {named(scenes)}." if scenes else "It has one image: leave out the scene."
        raise ArgumentError(f"{file} has no scene {scene!r}.", known, setting="scene")
    return number


def named(names: Sequence[str], most: int = 12) -> str:
    """Return names as text, the first and the last of many."""
    listed = list(names) if len(names) <= most else [*names[: most - 1], "...", names[-1]]
    return ", ".join(listed)


def reason(error: Exception) -> str:
    """Return what an error of another library says, on one line, with its type where the text alone is no reason."""
    text = " ".join(str(error).split()).rstrip(".")[:200]
    return text if text and type(error) in (OSError, ValueError) else f"{type(error).__name__}: {text}".strip(": ")


def full_unit(text: object) -> str:
    """Return the full English name of a unit of length, or 'pixel' if it is not known.

    Parameters
    ----------
    text
        As written in files: 'µm', 'um', 'micron', 'nm', 'millimetre', ...

    Returns
    -------
    str
        'micrometer', 'nanometer', 'millimeter', ... or 'pixel'.
    """
    unit = str(text or "").strip().strip('"').lower().replace("metre", "meter")
    if unit not in _SHORT and unit not in _METRES:
        unit = unit.removesuffix("s")
    unit = _SHORT.get(unit, unit)
    return unit if unit in _METRES else PIXEL


def timing(step: float | None, unit: object) -> tuple[float, str]:
    """Return the time step and unit of a file; 1 and 'pixel' unless it stores both.

    Parameters
    ----------
    step
        None if the file does not store it.
    unit
        As written in files: 's', 'second', 'ms', ...

    Returns
    -------
    tuple
        The step, and 'second', 'minute', ... or 'pixel'.
    """
    text = str(unit or "").strip().replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")
    full = next((name for name, short in TIME_UNITS.items() if text.lower() in (name, f"{name}s", short)), PIXEL)
    known = step is not None and math.isfinite(step) and step > 0 and full != PIXEL
    return (float(step), full) if known and step is not None else (1.0, PIXEL)


def in_one_unit(values: Sequence[float], units: Sequence[str]) -> tuple[tuple[float, ...], str] | None:
    """Convert lengths along (z, y, x) to the unit of the last one, x.

    Parameters
    ----------
    values
        One length per axis, each in its own unit.
    units
        One full unit name per axis; 'pixel' if it is not known.

    Returns
    -------
    tuple or None
        The lengths and their unit; None if only some of the units are known, or a length is too large to convert.
    """
    unit = units[-1]
    if all(other == unit for other in units):
        return tuple(float(value) for value in values), unit
    if PIXEL in units:
        return None
    ratios = [_METRES[other] / _METRES[unit] for other in units]
    try:
        return tuple(float(Fraction(value) * ratio) for value, ratio in zip(values, ratios, strict=True)), unit
    except OverflowError:
        return None


def calibrated(sizes: Sequence[float | None], units: Sequence[str]) -> tuple[tuple[float, float, float] | None, str]:
    """Return the voxel size of a file, or None unless it stores all three sizes.

    Parameters
    ----------
    sizes
        (z, y, x), each in its own unit; None if the file does not store it.
    units
        (z, y, x), full names; 'pixel' if the file does not store it.

    Returns
    -------
    tuple
        The voxel size (z, y, x) and its unit, or None and 'pixel'. Programs write sizes of 1 without a unit when
        they do not know the voxel size, so these count as not known.
    """
    known = [abs(float(size)) for size in sizes if size is not None and math.isfinite(size) and size != 0]
    converted = in_one_unit(known, units) if len(known) == 3 else None
    if converted is None or (converted[1] == PIXEL and set(converted[0]) == {1.0}):
        return None, PIXEL
    (z, y, x), unit = converted
    return (z, y, x), unit


def hex_color(text: object) -> str | None:
    """Return a colour 'RRGGBB' or '#RRGGBB' as '#rrggbb', and None for anything else."""
    digits = str(text or "").strip().removeprefix("#").lower()
    if len(digits) not in (6, 8) or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    return f"#{digits[:6]}"


def filled_names(names: Sequence[object]) -> tuple[str, ...]:
    """Name unnamed channels by their number; without any names return none."""
    if not any(names):
        return ()
    return tuple(str(name) if name else f"channel {i}" for i, name in enumerate(names))


def ome_xml_metadata(xml: str, sizes: Mapping[str, int], number: int = 0) -> Metadata:
    """Read voxel size, unit, position and channels from the OME-XML of a TIFF file.

    Parameters
    ----------
    xml
        The image description of the first page.
    sizes
        Lengths by axis letter ('x', 'y', 'z', ...) of the image that was read.
    number
        Number of that image in the file: the metadata come from the first OME image from there on with these lengths.

    Returns
    -------
    Metadata
        Empty if the XML is damaged or describes another image.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return Metadata()
    every = root.findall("{*}Image/{*}Pixels")
    for pixels in [*every[number:], *every[:number]]:
        if all(pixels.get(f"Size{axis.upper()}") == str(sizes.get(axis, 1)) for axis in "zyx"):
            return _of_pixels(pixels)
    return Metadata()


def planes_named(xml: str, pixels_of_page: int) -> int:
    """Return the largest number of planes that OME-XML names for an image or a part of one; 0 if it is damaged.

    An image of larger planes than the pages of the file has more of them.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return 0
    most = 0
    for pixels in root.iterfind("{*}Image/{*}Pixels"):
        planes = math.prod(_count(pixels.get(f"Size{axis}")) for axis in "ZCT")
        area = math.prod(_count(pixels.get(f"Size{axis}")) for axis in "YX")
        named = [planes, planes * area // max(1, pixels_of_page)]
        for data in pixels.iterfind("{*}TiffData"):
            named += [
                _count(data.get(name)) for name in ("PlaneCount", "NumPlanes", "IFD", "FirstZ", "FirstC", "FirstT")
            ]
        most = max(most, *named)
    return most


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() and len(text) < 1000 else 0


def _of_pixels(pixels: ElementTree.Element) -> Metadata:
    """Read an OME `Pixels` element."""
    sizes = [_number(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
    units = [full_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    voxel_size, unit = calibrated(sizes, units)
    channels = pixels.findall("{*}Channel")
    colors = tuple(_ome_color(channel.get("Color")) for channel in channels)
    time_step, time_unit = timing(_number(pixels.get("TimeIncrement")), pixels.get("TimeIncrementUnit", "s"))
    return Metadata(
        voxel_size=voxel_size,
        unit=unit,
        translate=_of_first_plane(pixels.findall("{*}Plane"), unit),
        channel_names=filled_names([channel.get("Name") for channel in channels]),
        channel_colors=colors if any(colors) else (),
        time_step=time_step,
        time_unit=time_unit,
    )


def _of_first_plane(planes: Sequence[ElementTree.Element], unit: str) -> tuple[float, float, float]:
    """Read the position (z, y, x) of the first plane in `unit`; the origin unless it is stored as lengths."""
    first = next((plane for plane in planes if all(plane.get(f"The{axis}") == "0" for axis in "ZCT")), None)
    if first is None:
        return 0.0, 0.0, 0.0
    position = [_number(first.get(f"Position{axis}")) for axis in "ZYX"]
    units = [full_unit(first.get(f"Position{axis}Unit")) for axis in "ZYX"]  # OME's default is not a length
    known = [value for value in position if value is not None]
    converted = in_one_unit([*known, 0.0], [*units, unit]) if len(known) == 3 else None
    if converted is None:
        return 0.0, 0.0, 0.0
    z, y, x, _ = converted[0]
    return z, y, x


def _ome_color(text: str | None) -> str | None:
    """Read OME's colour, a signed 32-bit integer of red, green, blue, alpha from the highest byte down."""
    number = _number(text)
    return None if number is None else f"#{(int(number) & 0xFFFFFFFF) >> 8:06x}"


def _number(text: str | None) -> float | None:
    """Read a finite number; None if there is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def imagej_metadata(
    description: Mapping[str, Any], lateral: tuple[float | None, float | None], channels: int
) -> Metadata:
    """Read voxel size, unit and channel colours from an ImageJ description.

    Parameters
    ----------
    description
        Keys and values as ImageJ writes them; `spacing` is the step along z. Without it the step is not known.
    lateral
        (y, x) size of a pixel, in the unit of the description.
    channels
        Number of channels of the image.

    Returns
    -------
    Metadata
    """
    x_unit = full_unit(description.get("unit"))
    units = [full_unit(description.get(key, x_unit)) for key in ("zunit", "yunit")]
    spacing = description.get("spacing")
    z_step = float(spacing) if isinstance(spacing, int | float) else None
    voxel_size, unit = calibrated([z_step, *lateral], [*units, x_unit])
    tables = description.get("LUTs")
    tables = tables if isinstance(tables, list) else [tables]
    colors = tuple("#" + "".join(f"{int(v):02x}" for v in table[:3, -1]) for table in tables if table is not None)
    return Metadata(voxel_size=voxel_size, unit=unit, channel_colors=colors if len(colors) == channels else ())


@dataclass(frozen=True)
class ImageInfo:
    """Axes, position and channels of an image to write."""

    axes: str  # 'zyx', 'czyx', 'tzyx' or 'tczyx', in the order of the array
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)  # (z, y, x) in `unit`
    unit: str = PIXEL  # 'micrometer', 'nanometer', ...; 'pixel' if unknown
    translate: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (z, y, x) of the first voxel's centre, in `unit`
    name: str = ""
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str | None, ...] = ()  # '#rrggbb'
    time_step: float = 1.0  # in `time_unit`
    time_unit: str = PIXEL  # 'second', 'minute', ...; 'pixel' if unknown
    windows: tuple[tuple[float, float], ...] = ()  # initial display limits of each channel; measured if not given
    labels: bool = False  # whether values are labels of objects, which cannot be averaged
    provenance: Mapping[str, Any] = field(default_factory=dict)  # how the image was computed, in JSON values

    def channels(self, shape: tuple[int, ...]) -> list[tuple[str, str | None]]:
        """Return name and colour of each channel of an array, with defaults for missing ones.

        Parameters
        ----------
        shape : tuple of int
            Of the array, in the order of ``axes``.

        Returns
        -------
        list
            (name, '#rrggbb' or None); empty for a single channel without name and colour.
        """
        count = int(shape[self.axes.index("c")]) if "c" in self.axes else 1
        if "c" not in self.axes and not (self.channel_names or any(self.channel_colors)):
            return []
        names, colors = self.channel_names[:count], self.channel_colors[:count]
        names = (*names, *(f"channel {n}" for n in range(len(names), count)))
        return list(zip(names, (*colors, *(None,) * (count - len(colors))), strict=True))
