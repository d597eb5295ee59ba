"""The arguments of ``cropeq``: its commands, each with its own file."""

from __future__ import annotations

import argparse

from napari_cropeq import __version__
from napari_cropeq.cli.degrade import add_degrade
from napari_cropeq.cli.evaluate import add_evaluate
from napari_cropeq.cli.export import add_export
from napari_cropeq.cli.info import add_info
from napari_cropeq.cli.mip import add_mip
from napari_cropeq.cli.options import add_common
from napari_cropeq.cli.publish import add_publish
from napari_cropeq.cli.train import add_train
from napari_cropeq.cli.trust import add_trust
from napari_cropeq.cli.verify import add_verify

__all__ = ["make_parser"]

DOCUMENTATION = "https://napari-cropeq.github.io/napari-cropeq/"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``cropeq`` and of all its commands."""
    parser = argparse.ArgumentParser(
        prog="cropeq",
        description="Self-supervised axial super-resolution of 3D images.",
        epilog="examples:\n  cropeq train stack.ome.tif -o stack.safetensors\n"
        "  cropeq export stack.ome.tif -m stack.safetensors -o stack_SR.ome.zarr\n\n"
        "'cropeq COMMAND --help' shows the options of a command.\n"
        f"Documentation: {DOCUMENTATION}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cropeq {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    adds = (add_info, add_train, add_export, add_degrade, add_evaluate, add_verify, add_trust, add_mip, add_publish)
    for add in adds:
        add(commands)
    for command in commands.choices.values():
        add_common(command)
    return parser
