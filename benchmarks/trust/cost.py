"""What expected error and consistency cost, beside the result alone: ratios of processor time, taken in turns.

    python benchmarks/trust/cost.py [--rounds 7]

The network is the default one, with random weights, because the cost does not depend on them. An export is the boxes
that it computes; a view is the tiles that a preview of an axial plane computes, with the same plane of the map.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch

from napari_cropeq.compute.consistency import consistency_of
from napari_cropeq.compute.fill import Failed
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import LEVELS, ErrorTail, build_network, subpositions_for
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.evidence.machine import describe_machine
from napari_cropeq.formats.image import Image, acquisition_of
from napari_cropeq.store.memory import TileCache
from napari_cropeq.view.in_view import InView
from napari_cropeq.view.maps import CONSISTENCY, ERROR
from napari_cropeq.view.view import View

RESULTS = Path(__file__).resolve().parents[1] / "results"
SHAPE = (40, 256, 256)
FACTORS = (2.433, 4.0)

Run = Callable[[], Any]
Prepare = Callable[[], Run]
"""Makes everything ready, and returns what is timed."""


def result_of(factor: float) -> SuperResolution:
    """Return the super-resolution of a noisy volume by a network with random weights."""
    volume = np.random.default_rng(0).normal(1000, 100, SHAPE).astype(np.uint16)
    image = Image(da.from_array(volume), "zyx", (factor, 1.0, 1.0), "micrometer", (0.0, 0.0, 0.0), "noise")
    acquisition, config = acquisition_of(image), TrainingConfig()
    torch.manual_seed(0)
    kind = config.network
    network = build_network(kind, config.filters, config.depth, 3, subpositions_for(kind, factor))
    torch.nn.init.normal_(network.tail.weight, std=0.01)
    tail = network.tail
    expected = ErrorTail.of(torch.zeros_like(tail.weight), torch.zeros_like(tail.bias) - 3, dict.fromkeys(LEVELS, 1.0))
    model = Model(network, acquisition, [Normalisation(0, 2000)], correction=config.correction, error_tail=expected)
    return SuperResolution(image, model, acquisition)


def export_of(result: SuperResolution, error: bool) -> Prepare:
    """Return what computes one box of an export."""
    box = Box.whole(result.sr_shape).intersect(Box((0, 0, 0), (64, 128, 128)))
    assert box is not None
    dtype = with_error(result) if error else None
    return lambda: partial(result.compute, (), box, dtype=dtype)


def view_of(result: SuperResolution, maps: frozenset[str]) -> Prepare:
    """Return what computes the middle axial plane, as the preview does."""
    depth, height, width = result.sr_shape
    plane = Box((0, height // 2, 0), (depth, height // 2 + 1, width))
    view = View((), plane, (depth / 2, height / 2, width / 2), across=1)
    consistency_of(result, ())  # the noise is measured once

    def prepare() -> Run:
        in_view, scheduler = InView(TileCache(), "source"), Scheduler()
        in_view.use(result, object())
        assert in_view.lazy is not None
        for _ in in_view.lazy.overview.fill(()):  # the interpolation, which is there before the maps
            pass
        in_view.maps.wanted = maps
        in_view.look(view)
        scheduler.look_at(in_view.requests(in_view.stores))
        return lambda: [event for event in scheduler.run() if isinstance(event, Failed)] and sys.exit("failed")

    return prepare


def seconds(prepare: Prepare) -> float:
    """Return the processor time of a run, s."""
    run = prepare()
    started = time.process_time()
    run()
    return time.process_time() - started


def compared(plain: Prepare, more: Prepare, rounds: int) -> dict[str, float]:
    """Return by how much more processor time the second takes, in per cent: median and quartiles of the rounds."""
    seconds(plain), seconds(more)
    ratios = [100 * (seconds(more) / seconds(plain) - 1) for _ in range(rounds)]
    names = ("lower quartile", "median", "upper quartile")
    return dict(zip(names, np.percentile(ratios, [25, 50, 75]).round(1).tolist(), strict=True))


def main() -> None:
    """Measure, print and write ``trust_cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found: dict[str, Any] = {"unit": "% more processor time than the result alone", "rounds": rounds}
    for factor in FACTORS:
        result = result_of(factor)
        parts = {
            "export, expected error": (export_of(result, False), export_of(result, True)),
            "view, expected error": (view_of(result, frozenset()), view_of(result, frozenset([ERROR]))),
            "view, consistency": (view_of(result, frozenset()), view_of(result, frozenset([CONSISTENCY]))),
            "view, both": (view_of(result, frozenset()), view_of(result, frozenset([ERROR, CONSISTENCY]))),
        }
        for name, (plain, more) in parts.items():
            found[f"x{factor:g}, {name}"] = compared(plain, more, rounds)
            print(f"x{factor:g}, {name}: {found[f'x{factor:g}, {name}']}", flush=True)
    found["machine"] = describe_machine()
    (RESULTS / "trust_cost.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
