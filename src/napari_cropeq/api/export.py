"""Export a super-resolved volume to a file."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from napari_cropeq.api.arguments import check_callback
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.api.result import result_of
from napari_cropeq.core.model import Model
from napari_cropeq.core.whole_file import path_of
from napari_cropeq.errors import StoppedError, WrongTypeError
from napari_cropeq.formats.paths import check_output
from napari_cropeq.run import export as whole_volumes
from napari_cropeq.run.export import ExportProgress, check_options
from napari_cropeq.run.partition import Partition

__all__ = ["export"]


def export(
    data: Any, model: Model | str | Path, path: str | Path, voxel_size: Sequence[float] | None = None, *,
    planes: str | None = None, dtype: str | None = None, existing: str = "refuse", partition: tuple[int, int] = (0, 1),
    device: str = "auto", allow_missing: float | None = None, error: bool = False,
    callback: Callback[ExportProgress] | None = None,
) -> Path:  # fmt: skip
    """Super-resolve a volume of any size into an OME-Zarr or OME-TIFF, with the bits of :func:`super_resolve`.

    The file gets its name only once it is complete. Until then there is ``NAME.partial.ome.zarr`` beside it, even if
    the run is stopped or killed; ``existing="resume"`` continues from there.

    Parameters
    ----------
    data, model, voxel_size, planes, dtype, device
        As in :func:`~napari_cropeq.api.voxels.super_resolve`.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    existing : {'refuse', 'resume', 'overwrite'}
        What to do if the file, or an unfinished one, exists already. 'resume' completes an unfinished file, and keeps
        a complete one as it is, whatever its settings. Planes, dtype and device that are not given are then those of
        the unfinished file.
    partition : (int, int)
        Number of this process, from 0, and how many processes share the work. All have the same ``path``; the last
        one to end completes the file.
    allow_missing : float, optional
        What planes that an OME-TIFF lacks are read as; by default such a file is refused.
    error : bool
        Whether to write the expected error of every voxel as well, float32, into ``NAME.error.ome.zarr`` (or
        ``.ome.tif``) beside the file. With 'resume', a complete file gets its expected errors.
    callback : callable, optional
        Called with the progress (``stage``, ``done``, ``total``, ``seconds_left``, ...) after every tile. The work
        stops if it returns False. By default, terminals and notebooks show a progress bar.

    Returns
    -------
    pathlib.Path
        The file. If processes share the work, it exists only after the last one has ended.

    Raises
    ------
    TypeError, ValueError, OSError
        If an argument is wrong, data and model do not match, or a file cannot be read or written.
    OutputExistsError
        If the file, or an unfinished one, exists and ``existing`` is "refuse".
    StoppedError
        If the callback returned False.
    """
    check_callback(callback)
    part = _partition(partition)
    path = _output(path, existing, part, error)
    planes, device, dtype = whole_volumes.settings_of(path, part.existing(existing), planes, device, dtype)
    result = result_of(data, model, voxel_size, planes, dtype, device, allow_missing)
    steps: Iterator[ExportProgress] = whole_volumes.export(
        result, path, existing=existing, part_of=(part.number, part.count), error=error
    )
    with reporting(callback, "exporting") as continues, closing(cast(Any, steps)):
        for progress in steps:
            if not continues(progress):
                done = f"{progress.done} of {progress.total} tiles"
                raise StoppedError(f"The callback stopped the work after {done}. existing='resume' continues it.")
    return path


def _output(path: object, existing: str, partition: Partition, error: bool) -> Path:
    """Return the path of the result, if it can be written there."""
    check_options(None, existing, partition, None, error)
    output = path_of("path", path, "Give a name ending in .ome.zarr or .ome.tif.")
    check_output(output, partition.existing(existing))
    return output


def _partition(partition: Any) -> Partition:
    """Return a partition given as a pair of numbers."""
    try:
        number, count = map(operator.index, partition)
    except (TypeError, ValueError):
        raise WrongTypeError(
            f"The partition {partition!r} is not a pair of whole numbers.",
            "Give the number of this process and how many there are, such as (0, 4).",
            setting="partition",
        ) from None
    return Partition(number, count)
