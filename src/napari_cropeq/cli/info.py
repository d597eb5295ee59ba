"""The command line's ``cropeq info``: what a file or a model says of itself, and the networks side by side."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cropeq.formats.image import Source

__all__ = ["add_info"]

Show = Callable[[], AbstractContextManager[Callable[[str, float, str], None]]]
"""Opens a progress bar, told ``(what, fraction, detail)``."""


def add_info(commands: Any, show: Show) -> argparse.ArgumentParser:
    """Add ``info`` to the subparsers ``commands``; ``show`` opens its progress bar."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info", help="what a file or a model says of itself; the networks side by side"
    )
    parser.add_argument("path", type=Path, nargs="?", metavar="FILE|MODEL")
    parser.add_argument(
        "--networks", action="store_true", help="layers, work and speed of each network on this machine"
    )
    parser.add_argument("--filters", type=int, default=32, help="of the networks; 32 by default")
    parser.add_argument("--factor", type=float, default=4.0, help="they are for; 4 by default")
    parser.set_defaults(run=functools.partial(_info, show=show))
    return parser


def _info(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    if arguments.networks == (arguments.path is not None):
        raise ValueError(
            "Got no file and no --networks, expected one of them: name a file or a model, or ask for --networks."
            if arguments.path is None
            else f"Got {arguments.path} and --networks, expected one of them: leave one out."
        )
    if arguments.networks:
        return _networks(arguments, show)
    if arguments.path.suffix == ".safetensors":
        report = _describe_model(arguments.path)
    else:
        from napari_cropeq.formats.image import open_source

        report = _describe_source(open_source(arguments.path))
    if not arguments.json:
        for key, value in report.items():
            print(f"{key:13} {value if isinstance(value, str) else json.dumps(value, default=str)}")
    return report


def _networks(arguments: argparse.Namespace, show: Show) -> dict[str, Any]:
    from napari_cropeq.core.network import NETWORKS
    from napari_cropeq.evidence.evaluate.table import markdown
    from napari_cropeq.evidence.machine import describe_machine
    from napari_cropeq.evidence.network_table import HEADER, cells, network_facts

    facts, machine = [], describe_machine()
    with show() as update:
        for number, fact in enumerate(network_facts(arguments.filters, arguments.factor, arguments.device), 1):
            facts.append(fact)
            update(f"measured {fact.network}", number / len(NETWORKS), "")
    if not arguments.json:
        print(markdown(HEADER, [cells(fact) for fact in facts]), end="")
        told = f"{arguments.filters} filters, factor {arguments.factor:g}"
        print(f"{told}; {machine['processor']}, {machine['cores']} cores")
    return {"networks": [fact.as_json() for fact in facts], "machine": machine}


def _describe_source(source: Source) -> dict[str, Any]:
    from napari_cropeq.formats.image import acquisition_of

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
