"""How a sub-command is added, and the options that several of them share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "add_budget",
    "add_command",
    "add_common",
    "add_device",
    "add_opening",
    "add_out",
    "add_place",
    "add_voxel_size",
    "image_path",
    "integers",
    "numbers",
]

EARLIER = ("--output", "--rim")
"""Spellings of earlier versions: they still work, and the help does not show them."""

PRESETS = ("fast", "paper", "light-sheet")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows ``-o, --out NAME`` instead of ``-o NAME, --out NAME``."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        shown = ", ".join(option for option in action.option_strings if option not in EARLIER)
        return f"{shown} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


def add_command(
    commands: Any, name: str, summary: str, examples: Sequence[str], run: Callable[[argparse.Namespace], dict[str, Any]]
) -> argparse.ArgumentParser:
    """Add a sub-command to the subparsers ``commands``.

    Parameters
    ----------
    commands
        What :meth:`argparse.ArgumentParser.add_subparsers` returns.
    name, summary : str
        The summary is one sentence without a full stop.
    examples : sequence of str
        Commands that the help shows at its end.
    run : callable
        Does the work and returns a report of JSON values.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, on the last line")
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log choices, retries and timings; -vv logs every tile"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_out(parser: argparse.ArgumentParser, metavar: str, text: str, **options: Any) -> None:
    """Add ``-o``, ``--out``: where the result is written."""
    parser.add_argument("-o", "--out", "--output", required=True, metavar=metavar, help=text, **options)


def add_voxel_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--voxel-size``."""
    parser.add_argument(
        "--voxel-size",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="use this voxel size instead of the one in the file, in the unit of the file (µm if it has none)",
    )


def image_path(text: str) -> Path | str:
    """Return the path of an image, or its address; see :func:`napari_cropeq.formats.paths.place_of`."""
    from napari_cropeq.formats.paths import is_url

    return text if is_url(text) else Path(text)


def add_opening(parser: argparse.ArgumentParser) -> None:
    """Add ``--scene`` and ``--allow-missing``: how an image is opened."""
    parser.add_argument(
        "--scene",
        metavar="NAME",
        help="name or number of the image in a file that has several (default: the first), or path of a field in a "
        "plate, such as B/3/0",
    )
    parser.add_argument(
        "--allow-missing",
        type=float,
        metavar="VALUE",
        help="read planes that an OME-TIFF lacks as this value, such as 0 (default: refuse the file)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps", "xpu"),
        default="auto",
        help="auto (default): a CUDA GPU or that of an Apple processor if there is one; xpu: an Intel GPU",
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add ``--channel`` and ``--time``, one number each."""
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="channel, counted from 0 (default 0)")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time point, counted from 0 (default 0)")


def add_budget(parser: Any, kind: Callable[[str], Any] = float, metavar: str = "M", text: str = "") -> None:
    """Add ``--minutes`` and ``--patches``, of which one may be given."""
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=kind, metavar=metavar, help=text or "train for this many minutes (default 2)")
    budget.add_argument(
        "--patches",
        type=int,
        metavar="N",
        help="train on this many patches instead; on the CPU, the same seed then gives the same bits",
    )


def numbers(text: str) -> list[float]:
    """Return the different numbers that are separated by commas."""
    try:
        return list(dict.fromkeys(float(word) for word in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers; write, for instance, 2,4") from error


def integers(text: str) -> list[int]:
    """Return the integers that are separated by commas."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of integers; write, for instance, 0,1") from error
