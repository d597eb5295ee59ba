"""What a file says of an image besides its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_cropeq.formats.metadata import PIXEL

__all__ = ["ImageInfo"]


@dataclass(frozen=True)
class ImageInfo:
    """Axes, place and channels of an image that is to be written."""

    axes: str  # 'zyx', 'czyx', 'tzyx' or 'tczyx', in the order of the array
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)  # (z, y, x) in `unit`
    unit: str = PIXEL  # 'micrometer', 'nanometer', ...; 'pixel' where unknown
    translate: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (z, y, x) of the first voxel's centre, in `unit`
    name: str = ""
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str | None, ...] = ()  # '#rrggbb'
    time_step: float = 1.0  # in `time_unit`
    time_unit: str = PIXEL  # 'second', 'minute', ...; 'pixel' where unknown
    windows: tuple[tuple[float, float], ...] = ()  # what each channel is first shown from and to; measured otherwise
    labels: bool = False  # whether values are names of objects, which have no means
    provenance: Mapping[str, Any] = field(default_factory=dict)  # how it came about, in values that JSON can hold

    def channels(self, shape: tuple[int, ...]) -> list[tuple[str, str | None]]:
        """Return name and colour of each channel of an array, those that are not said filled in.

        Parameters
        ----------
        shape : tuple of int
            Of the array, in the order of ``axes``.

        Returns
        -------
        list
            (name, '#rrggbb' or None); empty for one channel of which nothing is said.
        """
        count = int(shape[self.axes.index("c")]) if "c" in self.axes else 1
        if "c" not in self.axes and not (self.channel_names or any(self.channel_colors)):
            return []
        names, colors = self.channel_names[:count], self.channel_colors[:count]
        names = (*names, *(f"channel {n}" for n in range(len(names), count)))
        return list(zip(names, (*colors, *(None,) * (count - len(colors))), strict=True))
