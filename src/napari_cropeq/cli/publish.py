"""``cropeq publish``: a model as a package of bioimage.io."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from napari_cropeq.cli.options import add_command, add_out
from napari_cropeq.cli.progress import progress_bar

__all__ = ["add_publish"]


def add_publish(commands: Any) -> None:
    """Add ``publish`` to the subparsers ``commands``."""
    examples = [
        "cropeq publish stack.safetensors -o stack_model/ --author 'Jane Doe'",
        "cropeq publish stack.safetensors -o stack_model.zip --author 'Jane Doe' --cite 10.1000/xyz123 --tag brain",
    ]
    summary = "write a model as a package of bioimage.io, which other programs run without this one"
    parser = add_command(commands, "publish", summary, examples, _publish)
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file of cropeq train")
    add_out(parser, "PACKAGE", "a folder, or a file that ends in .zip", type=Path)
    parser.add_argument("--name", default="", help="name of the model (default: by the image that it was trained on)")
    parser.add_argument("--description", default="", metavar="TEXT", help="one sentence (default: by the factor)")
    parser.add_argument("--author", action="append", default=[], metavar="NAME", help="an author; can be repeated")
    parser.add_argument("--license", default="CC-BY-4.0", metavar="SPDX", help="licence (default CC-BY-4.0)")
    parser.add_argument(
        "--cite", action="append", default=[], metavar="DOI", help="a DOI or URL to cite as well; can be repeated"
    )
    parser.add_argument("--tag", action="append", default=[], help="a tag of bioimage.io; can be repeated")
    parser.add_argument(
        "--channel", type=int, default=0, metavar="N", help="channel whose intensity scale is built in (default 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing package")


def _publish(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.core.model import Model
    from napari_cropeq.run.publish.description import About
    from napari_cropeq.run.publish.publish import STAGES, publish

    about = About(
        arguments.name,
        arguments.description,
        tuple(arguments.author),
        arguments.license,
        tuple(arguments.cite),
        tuple(arguments.tag),
    )
    existing = "overwrite" if arguments.overwrite else "refuse"
    steps = publish(Model.load(arguments.model), arguments.out, about, arguments.channel, existing)
    with progress_bar() as update, closing(steps):
        while True:
            try:
                stage = next(steps)
            except StopIteration as end:
                trial = end.value
                break
            update(stage, STAGES.index(stage) / len(STAGES), "")
    if not arguments.json:
        print(f"{arguments.out}: its result is within {trial.difference:.1e} of the range from that of cropeq export")
        if not arguments.author:
            print("No author is named. bioimage.io wants one: --author NAME", file=sys.stderr)
    return {"package": str(arguments.out), "difference": trial.difference, "shape": list(trial.input.shape)}
