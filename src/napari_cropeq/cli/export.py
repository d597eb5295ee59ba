"""The command line's ``cropeq export``: whole volumes, one or many, with one model or one each."""

from __future__ import annotations

import argparse
import functools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.train import add_config, config_of

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.run.batch import BatchSettings, Item
    from napari_cropeq.run.distributed.client import Cluster
    from napari_cropeq.run.naming import Naming
    from napari_cropeq.run.train_to_file import OwnTraining

__all__ = ["add_export"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""

FORMATS = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif"}


def add_export(commands: Any, show: Show, sentence: Callable[[BaseException], str]) -> argparse.ArgumentParser:
    """Add ``export`` to the subparsers ``commands``; ``show`` opens its progress bar, ``sentence`` tells an error."""
    parser: argparse.ArgumentParser = commands.add_parser("export", help="super-resolve whole volumes")
    parser.add_argument("input", nargs="+", metavar="INPUT", help="a file, a folder, or a pattern in quotes")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("-m", "--model", type=Path, metavar="MODEL.safetensors", help="one model for all inputs")
    model.add_argument("--train", action="store_true", help="train on each input; its model is kept beside its output")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.ome.zarr|OUT.ome.tif|FOLDER/")
    parser.add_argument("--name", metavar="PATTERN", help="names in a FOLDER/; {name}_SR by default: see docs/batch.md")
    parser.add_argument("--format", choices=FORMATS, help="format in a FOLDER/; ome-zarr by default")
    parser.add_argument(
        "--planes", choices=("x", "y", "z", "both"), help="lateral axis that shares the plane with the axial one"
    )
    parser.add_argument("--dtype", choices=("source", "float32"), default="source")
    parser.add_argument("--tile", type=int, help="side of a tile in SR voxels")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="skip outputs that are done, complete unfinished ones")
    existing.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    several = parser.add_argument_group("several processes or machines: see docs/cluster.md")
    several.add_argument("--workers", type=int, metavar="N", help="start so many processes on this machine")
    several.add_argument("--scheduler", metavar="ADDRESS", help="of dask.distributed, such as tcp://10.0.0.1:8786")
    several.add_argument("--shard-id", type=int, metavar="I", help="which of --num-shards processes this is, from 0")
    several.add_argument("--num-shards", type=int, metavar="N", help="how many processes share the work")
    add_config(parser.add_argument_group("with --train, as in cropeq train"))
    parser.set_defaults(run=functools.partial(_export, show=show, sentence=sentence))
    return parser


def _export(arguments: argparse.Namespace, show: Show, sentence: Callable[[BaseException], str]) -> dict[str, Any]:
    try:
        with _folder_for(arguments.output):
            items = _run(arguments, show)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            "Interrupted: what is unfinished is kept, and the same command with --resume goes on from it."
        ) from error
    if len(items) == 1 and items[0].error is not None:
        raise items[0].error
    failed = [(item.input, item.error) for item in items if item.error is not None]
    for name, wrong in failed:
        if arguments.debug:
            traceback.print_exception(wrong)
        if arguments.json:
            print(f"cropeq: {name}: {sentence(wrong)}", file=sys.stderr)
    if not arguments.json:
        _tell(items, sentence)
    return {"exports": [_report(item, sentence) for item in items], "failed": len(failed)}


def _run(arguments: argparse.Namespace, show: Show) -> list[Item]:
    """Work on all inputs, and return where each stands at the end."""
    from napari_cropeq.formats.find import find_images
    from napari_cropeq.run.batch import Batch

    inputs = find_images(arguments.input)
    naming = _naming(arguments, len(inputs))
    settings = _settings(arguments)
    batch = Batch(inputs, naming, settings)
    steps = batch.run()
    log = len(inputs) > 1 and not sys.stderr.isatty()
    workers = settings.cluster or nullcontext()
    with show() as update, workers, closing(steps):  # what is unfinished is put away before anything else
        for progress in steps:
            item, place = progress.item, f"{progress.current + 1} of {len(inputs)}"
            what = item.name if len(inputs) == 1 else f"{place}: {item.name}"
            update(what, item.fraction, f"{item.status}, {item.detail}".removesuffix(", "))
            if log and item.ended:
                print(f"{what}: {item.status}", file=sys.stderr)
    return batch.items


def _naming(arguments: argparse.Namespace, inputs: int) -> Naming:
    """Return what results are called: as the output says, or as the pattern makes it in a folder."""
    from napari_cropeq.formats.paths import output_kind
    from napari_cropeq.run.naming import PATTERN, Naming

    output = Path(arguments.output)
    if _is_folder(arguments.output):
        pattern = PATTERN if arguments.name is None else arguments.name
        return Naming(output, pattern, FORMATS[arguments.format or "ome-zarr"])
    if inputs > 1:
        raise ValueError(f"Got {inputs} inputs and one output name {output}: give a folder ending in '/'.")
    for option in ("name", "format"):
        if getattr(arguments, option) is not None:
            raise ValueError(f"Got --{option} and the output name {output}, expected a folder: end it with '/'.")
    output_kind(output)
    return Naming.single(output)


def _settings(arguments: argparse.Namespace) -> BatchSettings:
    from napari_cropeq.run.batch import BatchSettings

    size = tuple(arguments.voxel_size) if arguments.voxel_size else None
    planes, dtype, tile, device = arguments.planes, arguments.dtype, arguments.tile, arguments.device
    part, cluster = _part(arguments), _cluster(arguments)
    goes_on = arguments.resume or part[1] > 1  # what the others have begun is there
    existing = "resume" if goes_on else "overwrite" if arguments.overwrite else "refuse"
    return BatchSettings(_model(arguments), existing, planes, dtype, tile, size, device, part, cluster)


def _part(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return which of how many processes this one is."""
    number, count = arguments.shard_id, arguments.num_shards
    if number is None and count is None:
        return 0, 1
    if number is None or count is None:
        given, missing = ("--num-shards", "--shard-id") if number is None else ("--shard-id", "--num-shards")
        raise ValueError(f"Got {given} without {missing}, expected both: give which of how many processes this one is.")
    for option in ("workers", "scheduler"):
        if getattr(arguments, option) is not None:
            raise ValueError(f"Got --shard-id and --{option}, expected one of the two: a scheduler shares the work.")
    if arguments.overwrite:
        raise ValueError(
            "Got --overwrite for work that is shared, expected --resume or nothing: remove the old output."
        )
    return number, count


def _cluster(arguments: argparse.Namespace) -> Cluster | None:
    """Return where tiles are computed, if not here."""
    if arguments.workers is None and arguments.scheduler is None:
        return None
    from napari_cropeq.run.distributed.client import Cluster

    if arguments.workers is not None and arguments.scheduler is not None:
        raise ValueError("Got --workers and --scheduler, expected one of the two: choose one.")
    return Cluster(arguments.workers, arguments.scheduler)


def _model(arguments: argparse.Namespace) -> Model | OwnTraining:
    """Return the model for all, or how each input is trained on."""
    from napari_cropeq.core.model import Model
    from napari_cropeq.run.train_to_file import OwnTraining

    if arguments.train:
        config = config_of(arguments, None)
        return OwnTraining(config, arguments.fwhm, arguments.lateral_fwhm, arguments.channel, arguments.time)
    given = [name for name in ("minutes", "patches", "filters", "seed", "fwhm") if getattr(arguments, name) is not None]
    if given or arguments.set:
        raise ValueError(
            f"Got --{(*given, 'set')[0]} and a model that is trained already, expected --train: leave out one of them."
        )
    return Model.load(arguments.model)


def _is_folder(output: str) -> bool:
    from napari_cropeq.formats.image import SUFFIXES

    # A shell completes the name of an OME-Zarr that is there with a slash.
    is_image = output.rstrip("/\\").lower().endswith(SUFFIXES)
    return not is_image and (output.endswith(("/", "\\")) or Path(output).is_dir())


@contextmanager
def _folder_for(output: str) -> Iterator[None]:
    """Make the folder that ``FOLDER/`` names, and remove it again if nothing came into it."""
    folder = Path(output)
    made = _is_folder(output) and not folder.exists() and folder.parent.is_dir()
    if made:
        folder.mkdir()
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()


def _report(item: Item, sentence: Callable[[BaseException], str]) -> dict[str, Any]:
    """Return what became of an input, as JSON values."""
    report = {"input": item.input, "output": None if item.output is None else str(item.output), "status": item.status}
    wrong = {} if item.error is None else {"message": sentence(item.error)}
    return report | {"shape": list(item.shape), **item.facts, "seconds": round(item.seconds, 2)} | wrong


def _tell(items: Sequence[Item], sentence: Callable[[BaseException], str]) -> None:
    """Print what became of one input in a line, of several in a table."""
    from rich.console import Console
    from rich.table import Table

    from napari_cropeq.run.batch import summary

    if len(items) == 1:
        anew = _anew(items[0])
        told = f"{_size(items[0])} {items[0].facts.get('dtype')}, {items[0].facts.get('exactness')}"
        told += f"; {anew}" if anew else ""
        ends = {"done": told, "shared": "this part is done; the last part to be done completes the output"}
        print(f"{items[0].output}: {ends.get(items[0].status, 'done already')}")
        return
    head = ("file", "output", "shape", "status", "seconds", "what is wrong")
    names = [item.name for item in items]
    if len(set(names)) < len(names):
        names = [item.input for item in items]
    rows = [(name, *_row(item, sentence)) for name, item in zip(names, items, strict=True)]
    console = Console()
    if console.is_terminal:
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    print(summary(items))


def _row(item: Item, sentence: Callable[[BaseException], str]) -> tuple[str, ...]:
    output = "" if item.output is None else item.output.name
    seconds = f"{item.seconds:.1f}" if item.seconds else ""
    wrong = _anew(item) if item.error is None else sentence(item.error)
    return output, _size(item), item.status, seconds, wrong


def _anew(item: Item) -> str:
    from napari_cropeq.run.export import mended

    return mended(item.facts.get("damaged", 0))


def _size(item: Item) -> str:
    return "x".join(map(str, item.shape))
