"""``cropeq export``: super-resolve whole images, one or many, with one model or one each."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq.cli.hints import sentence
from napari_cropeq.cli.options import add_command, add_device, add_opening, add_out, add_voxel_size
from napari_cropeq.cli.progress import progress_bar
from napari_cropeq.cli.train import add_config, training_config
from napari_cropeq.errors import ArgumentError

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.run.batch import BatchSettings, Item
    from napari_cropeq.run.distributed.client import Cluster
    from napari_cropeq.run.naming import Naming
    from napari_cropeq.run.train_to_file import OwnTraining

__all__ = ["add_export"]

FORMATS = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif"}


def add_export(commands: Any) -> None:
    """Add ``export`` to the subparsers ``commands``."""
    examples = [
        "cropeq export stack.ome.tif -m stack.safetensors -o stack_SR.ome.zarr",
        "cropeq export scans/ --train --minutes 5 -o results/ --resume",
    ]
    summary = "super-resolve whole images"
    parser = add_command(commands, "export", summary, examples, _export)
    parser.add_argument("input", nargs="+", metavar="IMAGE", help="a file, folder, address, or pattern in quotes")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("-m", "--model", type=Path, metavar="MODEL", help="use this model for all images")
    model.add_argument("--train", action="store_true", help="train a model on each image and save it beside the result")
    add_out(parser, "OUT", "a name ending in .ome.zarr or .ome.tif, or a folder ending in / for several images")
    add_voxel_size(parser)
    add_opening(parser)
    parser.add_argument(
        "--name",
        metavar="PATTERN",
        help="names of the results in a folder, such as {name}_x{factor} (default {name}_SR)",
    )
    parser.add_argument("--format", choices=FORMATS, help="format of the results in a folder (default ome-zarr)")
    parser.add_argument(
        "--planes",
        choices=("x", "y", "z", "both"),
        help="planes that go through the network, named by their lateral axis; both are averaged (default: both)",
    )
    parser.add_argument("--dtype", choices=("source", "float32"), help="type of the voxels (default: as the image)")
    parser.add_argument("--tile", type=int, metavar="N", help="side of a tile, in SR voxels; results stay the same")
    parser.add_argument(
        "--error",
        action="store_true",
        help="also write the expected error of every voxel, as NAME.error beside the result",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="skip results that are complete, and complete unfinished ones with the settings that they have",
    )
    existing.add_argument("--overwrite", action="store_true", help="replace existing results")
    add_device(parser)
    several = parser.add_argument_group("several processes or machines (see the page on clusters of the documentation)")
    several.add_argument("--workers", type=int, metavar="N", help="start N processes on this machine")
    several.add_argument("--scheduler", metavar="ADDRESS", help="use the Dask scheduler at, say, tcp://10.0.0.1:8786")
    several.add_argument("--shard-id", type=int, metavar="I", help="number of this process, from 0 to --num-shards - 1")
    several.add_argument("--num-shards", type=int, metavar="N", help="number of processes that share the work")
    add_config(parser.add_argument_group("with --train (as in cropeq train)"))


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        with _folder_for(arguments.out):
            items = _run(arguments)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            "Interrupted. Unfinished results are kept; run the same command with --resume to complete them."
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
        _print(items)
    return {"exports": [_report(item) for item in items], "failed": len(failed)}


def _run(arguments: argparse.Namespace) -> list[Item]:
    """Process all inputs and return their state at the end."""
    from napari_cropeq.formats.find import find_images
    from napari_cropeq.run.batch import Batch

    inputs = find_images(arguments.input, each=arguments.scene is None)
    naming = _naming(arguments, len(inputs))
    settings = _settings(arguments)
    batch = Batch(inputs, naming, settings)
    steps = batch.run()
    log = len(inputs) > 1 and not sys.stderr.isatty()
    workers = settings.cluster or nullcontext()
    with progress_bar() as update, workers, closing(steps):  # an unfinished store is closed first
        for progress in steps:
            item, place = progress.item, f"{progress.current + 1} of {len(inputs)}"
            what = item.name if len(inputs) == 1 else f"{place}: {item.name}"
            update(what, item.fraction, f"{item.status}, {item.detail}".removesuffix(", "))
            if log and item.ended:
                print(f"{what}: {item.status}", file=sys.stderr)
    return batch.items


def _naming(arguments: argparse.Namespace, inputs: int) -> Naming:
    """Return how results are named: as the output says, or in a folder by the pattern."""
    from napari_cropeq.formats.paths import output_kind
    from napari_cropeq.run.naming import PATTERN, Naming

    output = Path(arguments.out)
    if _is_folder(arguments.out):
        pattern = PATTERN if arguments.name is None else arguments.name
        return Naming(output, pattern, FORMATS[arguments.format or "ome-zarr"])
    if inputs > 1:
        raise ArgumentError(f"{inputs} images cannot be saved as one file {output}.", "Give a folder, ending in '/'.")
    for option in ("name", "format"):
        if getattr(arguments, option) is not None:
            raise ArgumentError(f"--{option} needs a folder as output, not {output}.", "End the output with '/'.")
    output_kind(output)
    return Naming.single(output)


def _settings(arguments: argparse.Namespace) -> BatchSettings:
    from napari_cropeq.run.batch import BatchSettings

    size = tuple(arguments.voxel_size) if arguments.voxel_size else None
    planes, dtype, tile, device = arguments.planes, arguments.dtype, arguments.tile, arguments.device
    part, cluster = _part(arguments), _cluster(arguments)
    existing = "resume" if arguments.resume else "overwrite" if arguments.overwrite else "refuse"
    missing = arguments.allow_missing
    return BatchSettings(
        _model(arguments),
        existing,
        planes,
        dtype,
        tile,
        size,
        device,
        part,
        cluster,
        allow_missing=missing,
        scene=arguments.scene,
        error=arguments.error,
    )


def _part(arguments: argparse.Namespace) -> tuple[int, int]:
    """Return the number of this process, and how many share the work."""
    number, count = arguments.shard_id, arguments.num_shards
    if number is None and count is None:
        return 0, 1
    if number is None or count is None:
        given, missing = ("--num-shards", "--shard-id") if number is None else ("--shard-id", "--num-shards")
        raise ArgumentError(f"{given} is given without {missing}.", "Give both.")
    return number, count


def _cluster(arguments: argparse.Namespace) -> Cluster | None:
    """Return the cluster that computes the tiles, None if this process does."""
    if arguments.workers is None and arguments.scheduler is None:
        return None
    from napari_cropeq.run.distributed.client import Cluster

    return Cluster(arguments.workers, arguments.scheduler)


def _model(arguments: argparse.Namespace) -> Model | OwnTraining:
    """Return the model for all images, or the training of each."""
    from napari_cropeq.core.model import Model
    from napari_cropeq.run.train_to_file import OwnTraining

    if arguments.train:
        config = training_config(arguments, None)
        return OwnTraining(config, arguments.fwhm, arguments.lateral_fwhm, arguments.channel, arguments.time)
    unchanged: dict[str, object] = {"lateral_fwhm": 0.0, "preset": "fast", "channel": [0], "time": [0], "set": []}
    unchanged |= dict.fromkeys(("minutes", "patches", "filters", "seed", "fwhm"))
    given = [name for name, value in unchanged.items() if getattr(arguments, name) != value]
    if given:
        raise ArgumentError(
            f"--{given[0].replace('_', '-')} has no effect on a model that is trained already.",
            "Leave it out, or give --train in the place of --model.",
        )
    return Model.load(arguments.model)


def _is_folder(output: str) -> bool:
    from napari_cropeq.formats.open import SUFFIXES

    # A shell completes the name of an existing OME-Zarr folder with a slash.
    is_image = output.rstrip("/\\").lower().endswith(SUFFIXES)
    return not is_image and (output.endswith(("/", "\\")) or Path(output).is_dir())


@contextmanager
def _folder_for(output: str) -> Iterator[None]:
    """Make the folder of the output, and remove it again if it stays empty."""
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


def _report(item: Item) -> dict[str, Any]:
    """Return the outcome of an input as JSON values."""
    report = {"input": item.input, "output": None if item.output is None else str(item.output), "status": item.status}
    wrong = {} if item.error is None else {"message": sentence(item.error)}
    return report | {"shape": list(item.shape), **item.facts, "seconds": round(item.seconds, 2)} | wrong


def _print(items: Sequence[Item]) -> None:
    """Print the outcome of one input in a line, of several in a table."""
    from rich.console import Console
    from rich.table import Table

    from napari_cropeq.run.batch import summary

    if len(items) == 1:
        repaired = _repaired(items[0])
        done = f"{_size(items[0])} {items[0].facts.get('dtype')}, {items[0].facts.get('exactness')}"
        done += f"; {repaired}" if repaired else ""
        ends = {"done": done, "shared": "this part is done; the last part to finish completes the output"}
        print(f"{items[0].output}: {ends.get(items[0].status, 'was complete already')}")
        return
    head = ("file", "output", "shape", "status", "seconds", "message")
    names = [item.name for item in items]
    if len(set(names)) < len(names):
        names = [item.input for item in items]
    rows = [(name, *_row(item)) for name, item in zip(names, items, strict=True)]
    console = Console(markup=False, emoji=False)  # names may contain brackets and colons
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


def _row(item: Item) -> tuple[str, ...]:
    output = "" if item.output is None else item.output.name
    seconds = f"{item.seconds:.1f}" if item.seconds else ""
    wrong = _repaired(item) if item.error is None else sentence(item.error)
    return output, _size(item), item.status, seconds, wrong


def _repaired(item: Item) -> str:
    from napari_cropeq.run.export import mended

    return mended(item.facts.get("damaged", 0))


def _size(item: Item) -> str:
    return "x".join(map(str, item.shape))
