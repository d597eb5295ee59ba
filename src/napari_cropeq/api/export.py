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
    data: Any,
    model: Model | str | Path,
    path: str | Path,
    voxel_size: Sequence[float] | None = None,
    *,
    planes: str | None = None,
    dtype: str = "source",
    existing: str = "refuse",
    partition: tuple[int, int] = (0, 1),
    device: str = "auto",
    callback: Callback[ExportProgress] | None = None,
) -> Path:
    """Super-resolve a volume of any size into an OME-Zarr or OME-TIFF, as ``cropeq export`` does, with the same bits.

    The file has its name only once it is complete. Until then ``NAME.partial.ome.zarr`` lies beside it, also after a
    run that was stopped or killed; ``existing="resume"`` continues from there.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array is (z, y, x), (c, z, y, x) or (t, c, z, y, x).
    model : Model or path
        Trained on these data or on siblings of the same factor.
    path : path
        Ends in ``.ome.zarr`` or ``.ome.tif``.
    voxel_size : (z, y, x), optional
        Steps between voxels; the data's own by default or, where they have none, those the model was trained with.
    planes : {'z', 'y', 'x', 'both'}, optional
        The lateral axis that shares planes with the axial one, or the mean of both; the last one by default.
    dtype : {'source', 'float32'}
        That of the data, rounded and clipped, or float32.
    existing : {'refuse', 'resume', 'overwrite'}
        What to do where the file, or an unfinished one, is there already.
    partition : (int, int)
        Which of how many processes that share the work this one is, from 0. All name the same ``path``; the last one
        to end completes it.
    device : {'auto', 'cpu', 'cuda'}
        Where to compute.
    callback : callable, optional
        Takes the progress (``stage``, ``done``, ``total``, ``seconds_left``, ...) after every tile. The work stops if
        it returns False. By default there is a progress bar in terminals and notebooks.

    Returns
    -------
    pathlib.Path
        The file; of a process that is not the last of several it is not there yet.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or data and model do not fit each other.
    FileExistsError
        If the file, or an unfinished one, is there and ``existing`` is "refuse".
    OSError
        If the data cannot be read or the file cannot be written.
    StoppedError
        If the callback returned False.
    """
    check_callback(callback)
    check_choice("existing", existing, EXISTING)
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path: got {type(path).__name__}. Give a name ending in .ome.zarr or .ome.tif.")
    path = Path(path).expanduser()
    number, count = _partition(partition)
    if count > 1 and existing == "overwrite":
        raise ValueError("existing: processes that share the work cannot overwrite. Remove the old file first.")
    check_output(path, "resume" if count > 1 else existing)
    result = result_of(data, model, voxel_size, planes, dtype, device)
    steps: Iterator[ExportProgress] = whole_volumes.export(result, path, existing=existing, part_of=(number, count))
    with reporting(callback, "exporting") as goes_on, closing(cast(Any, steps)):
        for progress in steps:
            if not goes_on(progress):
                raise StoppedError(
                    f"Stopped by the callback after {progress.done} of {progress.total} tiles; existing='resume' "
                    "continues from there."
                )
    return path


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
