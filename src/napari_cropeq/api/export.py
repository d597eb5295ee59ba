"""A super-resolved volume as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from napari_cropeq.api.arguments import check_callback, check_choice
from napari_cropeq.api.progress import Callback, reporting
from napari_cropeq.api.result import result_of
from napari_cropeq.core.model import Model
from napari_cropeq.errors import StoppedError
from napari_cropeq.formats.paths import EXISTING, check_output
from napari_cropeq.run import export as whole_volumes
from napari_cropeq.run.export import ExportProgress
from napari_cropeq.run.partition import Partition

__all__ = ["export"]


def export(
    data: Any, model: Model | str | Path, path: str | Path, voxel_size: Sequence[float] | None = None, *,
    planes: str | None = None, dtype: str = "source", existing: str = "refuse", partition: tuple[int, int] = (0, 1),
    device: str = "auto", callback: Callback[ExportProgress] | None = None,
) -> Path:  # fmt: skip
    """Super-resolve a volume of any size into an OME-Zarr or OME-TIFF, as ``cropeq export`` does, with the same bits.

    The file has its name only once it is complete. Until then ``NAME.partial.ome.zarr`` lies beside it, also after a
    run that was stopped or killed; ``existing="resume"`` continues from there.

    Parameters
    ----------
    data, model, voxel_size, planes, dtype, device
        As in :func:`~napari_cropeq.api.voxels.super_resolve`.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    existing : {'refuse', 'resume', 'overwrite'}
        What to do where the file, or an unfinished one, is there already.
    partition : (int, int)
        Which of how many processes that share the work this one is, from 0. All name the same ``path``; the last one
        to end completes it.
    callback : callable, optional
        Takes the progress (``stage``, ``done``, ``total``, ``seconds_left``, ...) after every tile. The work stops if
        it returns False. By default there is a progress bar in terminals and notebooks.

    Returns
    -------
    pathlib.Path
        The file; of a process that is not the last of several it is not there yet.

    Raises
    ------
    TypeError, ValueError, OSError
        If an argument is wrong, data and model do not fit each other, or a file cannot be read or written.
    FileExistsError
        If the file, or an unfinished one, is there and ``existing`` is "refuse".
    StoppedError
        If the callback returned False.
    """
    check_callback(callback)
    part = _partition(partition)
    path = _output(path, existing, part)
    result = result_of(data, model, voxel_size, planes, dtype, device)
    steps: Iterator[ExportProgress] = whole_volumes.export(result, path, existing=existing, part_of=part)
    with reporting(callback, "exporting") as goes_on, closing(cast(Any, steps)):
        for progress in steps:
            if not goes_on(progress):
                done = f"{progress.done} of {progress.total} tiles"
                raise StoppedError(f"Stopped by the callback after {done}; existing='resume' continues from there.")
    return path


def _output(path: object, existing: str, partition: tuple[int, int]) -> Path:
    """Return where the result goes, if it may go there."""
    check_choice("existing", existing, EXISTING)
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path: got {type(path).__name__}. Give a name ending in .ome.zarr or .ome.tif.")
    shared = partition[1] > 1
    if shared and existing == "overwrite":
        raise ValueError("existing: processes that share the work cannot overwrite. Remove the old file first.")
    output = Path(path).expanduser()
    check_output(output, "resume" if shared else existing)
    return output


def _partition(partition: Any) -> tuple[int, int]:
    """Return which of how many processes this one is."""
    try:
        number, count = partition
        Partition(number, count)
    except (TypeError, ValueError):
        raise ValueError(
            f"partition: got {partition!r}. Give which of how many processes this one is, such as (0, 4)."
        ) from None
    return int(number), int(count)
