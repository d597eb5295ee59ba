"""``cropeq trust``: what to trust in a result."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from napari_cropeq.cli.options import (
    add_command,
    add_device,
    add_opening,
    add_out,
    add_place,
    add_voxel_size,
    image_path,
)
from napari_cropeq.cli.progress import progress_bar

__all__ = ["add_trust"]


def add_trust(commands: Any) -> None:
    """Add ``trust`` to the subparsers ``commands``."""
    examples = [
        "cropeq trust stack_SR.ome.zarr stack.ome.tif -m stack.safetensors -o trust/",
        "cropeq trust stack_SR.ome.tif stack.ome.tif -m stack.safetensors -o trust/ --channel 1",
    ]
    summary = "report what to trust in a result: consistency, expected error, axial resolution, and warnings"
    parser = add_command(commands, "trust", summary, examples, _trust)
    parser.add_argument("result", type=Path, metavar="RESULT", help="a finished result of export")
    parser.add_argument("source", type=image_path, metavar="IMAGE", help="the image that it was computed from")
    parser.add_argument(
        "-m", "--model", type=Path, required=True, metavar="MODEL", help="the model that it was computed by"
    )
    add_out(
        parser,
        "FOLDER",
        "folder for the page, pictures and figures; an earlier report there is replaced",
        type=Path,
    )
    add_voxel_size(parser)
    add_opening(parser)
    add_place(parser)
    add_device(parser)


def _trust(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.api.trust import trust
    from napari_cropeq.formats.open import open_image

    source = open_image(arguments.source, arguments.allow_missing, arguments.scene)
    with progress_bar() as update:
        report = trust(
            arguments.result,
            source,
            arguments.model,
            arguments.voxel_size,
            channel=arguments.channel,
            time=arguments.time,
            device=arguments.device,
            callback=lambda step: update(step.what, step.share, ""),
        )
    files = report.save(arguments.out, " ".join(map(shlex.quote, ["cropeq", *sys.argv[1:]])))
    if not arguments.json:
        for sentence in report.sentences.values():
            print(sentence)
        for sentence in report.warnings:
            print(f"Warning: {sentence}")
        print(f"\nFor a methods section:\n{report.methods}\n")
        print(f"{arguments.out}: {', '.join(path.name for path in files)}")
    return report.figures | {"files": [str(path) for path in files]}
