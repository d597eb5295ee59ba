"""Table of the networks (paper, Table 1): sizes from the networks themselves, speeds measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.network import NETWORKS, Network, build_network, subpositions_for, work
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import ArgumentError

__all__ = ["HEADER", "NetworkFacts", "cells", "network_facts"]

HEADER = (
    "network",
    "layers",
    "parameters",
    "receptive field (px)",
    "shrink (px)",
    "multiply-adds per SR voxel",
    "in tiles of 64",
    "training (patches/s)",
    "inference (kvoxel/s)",
)
TILE = 64
SECONDS = 3.0  # of each measurement
STEPS = 3  # of training, at least


@dataclass(frozen=True)
class NetworkFacts:
    """One network, as built for a factor.

    Parameters
    ----------
    network : str
        Kind of the network.
    filters : int
        Feature maps between layers.
    factor : float
        Axial step over lateral step.
    layers, parameters : int
        Number of convolutions and of trained numbers.
    receptive_field, shrink : int
        Along the lateral axis, px.
    work, work_in_tiles : float
        Multiply-adds per SR voxel, without halos and in tiles of 64.
    patches_per_second, voxels_per_second : float
        Measured: training with the default settings, inference of whole planes.
    """

    network: str
    filters: int
    factor: float
    layers: int
    parameters: int
    receptive_field: int
    shrink: int
    work: float
    work_in_tiles: float
    patches_per_second: float
    voxels_per_second: float

    def as_json(self) -> dict[str, float | str]:
        """Return the values of all fields."""
        return asdict(self)


def network_facts(filters: int, factor: float, device: str = "auto") -> Iterator[NetworkFacts]:
    """Yield the facts about each network.

    Parameters
    ----------
    filters : int
        Feature maps between layers.
    factor : float
        Axial step over lateral step; sets the number of outputs of the network on the source grid.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.

    Raises
    ------
    ArgumentError
        If no network can be built for ``filters`` and ``factor``.
    """
    if not factor > 1:
        raise ArgumentError(f"The factor {factor:g} is not above 1.", "Choose a larger factor.", setting="factor")
    for kind in NETWORKS:
        config = TrainingConfig(network=kind, filters=filters)
        network = build_network(kind, filters, config.depth, config.kernel, subpositions_for(kind, factor))
        acquisition = Acquisition((factor, 1.0, 1.0))
        yield NetworkFacts(
            network=kind,
            filters=filters,
            factor=factor,
            layers=network.layers,
            parameters=sum(p.numel() for p in network.parameters()),
            receptive_field=network.receptive_field,
            shrink=network.shrink,
            work=_work(network, factor, 0),
            work_in_tiles=_work(network, factor, TILE),
            patches_per_second=_training_rate(config, acquisition, device),
            voxels_per_second=_inference_rate(network, acquisition, device),
        )


def _work(network: Network, factor: float, tile: int) -> float:
    """Return multiply-adds per SR voxel of a tile, or of an infinite image if ``tile`` is 0."""
    step = factor if network.on_source_grid else 1.0
    if not tile:
        return sum(weights.numel() for weights in network.parameters() if weights.ndim == 4) / step
    return work(network, max(1, round(tile / step)), tile) / tile**2


def _noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def _training_rate(config: TrainingConfig, acquisition: Acquisition, device: str) -> float:
    """Return the patches per second of a training, without its first step."""
    training = Training(_noise((16, 160, 160)), acquisition, config, device)
    steps = training.run()
    first = next(steps)
    started, number = time.perf_counter(), 0
    for step in steps:
        number += 1
        spent = time.perf_counter() - started
        if spent > SECONDS and number >= STEPS:
            return (step.patches - first.patches) / spent
    raise RuntimeError("the training ended before it was measured")


def _inference_rate(network: Network, acquisition: Acquisition, device: str) -> float:
    """Return the SR voxels per second for whole planes, interpolation included."""
    source = _noise((64, 32, 256))
    predictor = Predictor(network, acquisition, source, Normalisation(0.0, 1.0), device=device).at_once()
    high, rows, wide = predictor.sr_shape
    planes = [Box((0, row, 0), (min(high, 256), row + 1, wide)) for row in range(rows)]
    predictor(planes[0])
    started, done = time.perf_counter(), 0
    for plane in planes:
        predictor(plane)
        done += plane.size
        if time.perf_counter() - started > SECONDS:
            break
    return done / (time.perf_counter() - started)


def cells(facts: NetworkFacts) -> list[str]:
    """Return a row of the table as text."""
    return [
        facts.network,
        str(facts.layers),
        f"{facts.parameters:,}",
        str(facts.receptive_field),
        str(facts.shrink),
        f"{facts.work:,.0f}",
        f"{facts.work_in_tiles:,.0f}",
        f"{facts.patches_per_second:.1f}",
        f"{facts.voxels_per_second / 1e3:.0f}",
    ]
