"""The command line: cropeq info | train | export | evaluate."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cropeq import __version__
from napari_cropeq.cli_evaluate import add_evaluate
from napari_cropeq.cli_train import add_train

if TYPE_CHECKING:
    from napari_cropeq.volume.sources import Source
    from napari_cropeq.volume.superres import SuperResolution

__all__ = ["main"]

# What a user can mend, told in a sentence; anything else is a defect and keeps its traceback.
EXPECTED = (ValueError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cropeq`` and return its exit code: 0, 1 for an error told in one sentence, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what is wrong with a file is told in a sentence
    before = _listen()
    try:
        report = arguments.run(arguments)
    except KeyboardInterrupt as error:
        print(str(error) or "Interrupted: what was begun has been removed.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if arguments.debug:
            raise
        print(f"cropeq: {_sentence(error)}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arguments.json:
        print(json.dumps(report, default=str))
    return 0


_interrupted = threading.Event()


def _listen() -> dict[int, Any]:
    """Have a job scheduler's SIGTERM clean up as Ctrl-C does; return the handlers there were."""
    _interrupted.clear()
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell has background jobs ignore it
        wanted.append(signal.SIGINT)
    return {number: signal.signal(number, _interrupt) for number in wanted}


def _interrupt(*_: Any) -> None:
    # Where Python happens to be in a destructor or a weak reference's callback it swallows what is raised: the next
    # step of the work asks again.
    _interrupted.set()
    raise KeyboardInterrupt


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"Got too little memory ({text[:200]}): use smaller tiles (--tile), fewer filters or another device."
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cropeq", description="Self-supervised axial super-resolution of 3D volumes.")
    parser.add_argument("--version", action="version", version=f"cropeq {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    info = commands.add_parser("info", help="what a file or a model says of itself")
    info.add_argument("path", type=Path, metavar="FILE|MODEL")
    info.set_defaults(run=_info)

    train = add_train(commands, _progress)

    export = commands.add_parser("export", help="super-resolve whole volumes")
    export.add_argument("input", type=Path, nargs="+", metavar="INPUT")
    export.add_argument("-m", "--model", type=Path, required=True, metavar="MODEL.safetensors")
    export.add_argument("-o", "--output", required=True, metavar="OUT.ome.zarr|OUT.ome.tif|FOLDER/")
    export.add_argument(
        "--planes", choices=("x", "y", "z", "both"), help="lateral axis that shares the plane with the axial one"
    )
    export.add_argument("--dtype", choices=("source", "float32"), default="source")
    export.add_argument("--tile", type=int, help="side of a tile in SR voxels")
    export.add_argument("--overwrite", action="store_true", help="replace an existing output")
    export.set_defaults(run=_export)

    evaluate = add_evaluate(commands, _progress)

    for command in (train, export):
        command.add_argument("--voxel-size", type=float, nargs=3, metavar=("Z", "Y", "X"), help="instead of the file's")
        command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    for command in (info, train, export, evaluate):
        command.add_argument("--json", action="store_true", help="print one machine-readable object last")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.path.suffix == ".safetensors":
        report = _describe_model(arguments.path)
    else:
        from napari_cropeq.volume.sources import open_source

        report = _describe_source(open_source(arguments.path))
    if not arguments.json:
        for key, value in report.items():
            print(f"{key:13} {value if isinstance(value, str) else json.dumps(value, default=str)}")
    return report


def _describe_source(source: Source) -> dict[str, Any]:
    from napari_cropeq.volume.superres import acquisition_of

    report = source.describe()
    try:
        acquisition = acquisition_of(source)
    except ValueError as error:
        return report | {"factor": None, "note": str(error)}
    return report | {
        "axial": "zyx"[acquisition.axial],
        "factor": round(acquisition.factor, 6),
        "sr_shape": list(acquisition.sr_shape(source.data.shape[-3:])),
    }


def _describe_model(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from napari_cropeq.core.model import Model

    model = Model.load(path)
    network = model.network
    return {
        "network": {
            "kind": network.kind,
            "filters": network.filters,
            "layers": network.layers,
            "receptive_field": network.receptive_field,
            "parameters": sum(p.numel() for p in network.parameters()),
        },
        "factor": model.acquisition.factor,
        "acquisition": asdict(model.acquisition),
        "normalisations": [asdict(n) for n in model.normalisations],
        "training": dict(model.training),
        "provenance": dict(model.provenance),
        "fingerprint": model.fingerprint,
    }


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.core.model import Model
    from napari_cropeq.volume.destination import check_output, output_kind

    with _folder_for(arguments.output):
        paths = _outputs(arguments.output, arguments.input)
        for path in paths:
            output_kind(path)
            check_output(path, _existing(arguments))
        model = Model.load(arguments.model)
        results = [_result(arguments, source, model) for source in arguments.input]
        return {"exports": _export_all(arguments, paths, results)}


def _existing(arguments: argparse.Namespace) -> str:
    return "overwrite" if arguments.overwrite else "refuse"


def _export_all(arguments: argparse.Namespace, paths: list[Path], results: list[SuperResolution]) -> list[Any]:
    from napari_cropeq.volume.export import export

    reports: list[dict[str, Any]] = []
    for path, result in zip(paths, results, strict=True):
        seconds = 0.0
        steps = export(result, path, arguments.tile, _existing(arguments))
        with _progress() as update, closing(steps):  # what was begun is removed before anything else
            for step in steps:
                update(path.name, step.done / step.total, f"{step.stage}, {step.done} of {step.total} tiles")
                seconds = step.seconds
        reports.append(
            {
                "input": str(result.source.path),
                "output": str(path),
                "shape": [*result.lead_shape, *result.sr_shape],
                "voxel_size": list(result.acquisition.sr_voxel_size),
                "unit": result.acquisition.unit,
                "dtype": str(result.dtype),
                "exactness": str(result.exactness),
                "seconds": round(seconds, 2),
            }
        )
        if not arguments.json:
            print(f"{path}: {'x'.join(map(str, reports[-1]['shape']))} {result.dtype}, {result.exactness}")
    return reports


def _is_folder(output: str) -> bool:
    from napari_cropeq.volume.sources import SUFFIXES

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


def _outputs(output: str, inputs: list[Path]) -> list[Path]:
    """Return one output for each input: the name given, or names made from the inputs' in a folder."""
    from napari_cropeq.volume.destination import output_path
    from napari_cropeq.volume.sources import open_source

    if not _is_folder(output):
        if len(inputs) > 1:
            raise ValueError(f"Got {len(inputs)} inputs and one output name {output}: give a folder ending in '/'.")
        return [Path(output)]
    paths = [output_path(Path(output), open_source(path).name) for path in inputs]
    if len(set(paths)) < len(paths):
        raise ValueError("Got several inputs of one name, expected different ones: export them to different folders.")
    return paths


def _result(arguments: argparse.Namespace, path: Path, model: Any) -> SuperResolution:
    from napari_cropeq.volume.sources import open_source
    from napari_cropeq.volume.superres import SuperResolution, acquisition_of

    source, size = open_source(path), _voxel_size(arguments)
    acquisition = acquisition_of(source, size) if size else None
    return SuperResolution(source, model, acquisition, arguments.planes, arguments.device, arguments.dtype)


def _voxel_size(arguments: argparse.Namespace) -> tuple[float, float, float] | None:
    if arguments.voxel_size is None:
        return None
    z, y, x = arguments.voxel_size
    return z, y, x


@contextmanager
def _progress() -> Iterator[Callable[[str, float, str], None]]:
    """Give a function that shows ``(what, fraction, detail)`` with the time left, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0, detail="")

        def update(what: str, fraction: float, detail: str) -> None:
            if _interrupted.is_set():
                raise KeyboardInterrupt
            progress.update(task, description=what, completed=fraction, detail=detail)

        yield update


if __name__ == "__main__":
    sys.exit(main())
