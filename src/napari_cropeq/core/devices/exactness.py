"""Test whether tiles have the same bits as the whole on a device."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_cropeq.core.call_size import CanonicalTile
from napari_cropeq.core.devices.device import choose_device, memory_of, warn_once
from napari_cropeq.core.devices.out_of_memory import SPOILT, give_memory_back, is_out_of_memory, is_spoilt, watched
from napari_cropeq.core.devices.transfer import own_stream
from napari_cropeq.core.geometry import IntTriple
from napari_cropeq.core.host import exact_convolutions
from napari_cropeq.core.network import Network, build_network, use_channels_last
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.errors import ArgumentError

__all__ = ["Exactness", "canonical_tile", "check_exactness", "device_for", "same_bits_side_by_side"]

logger = logging.getLogger(__name__)

HEIGHT, WIDTH = 64, 56  # of the test image
MOST_DIFFERENCE = 1e-3  # between a device and the CPU, share of the largest value
MOST_TOGETHER = 8
MOST_ELEMENTS = 2**30  # in one array: Apple's GPUs end the process beyond 4 GB, and CUDA's kernels count in 32 bits

_Build = tuple[str, int, int, int, int]
"""The arguments of a network: kind, filters, blocks, kernel, subpositions."""


@dataclass(frozen=True, slots=True)
class Exactness:
    """Result of the test on a device: the largest |tile - whole| for normalised intensities."""

    device: str
    epsilon: float

    @property
    def bit_exact(self) -> bool:
        """Whether tiles of every tested shape had the same bits as the whole."""
        return self.epsilon == 0

    def __str__(self) -> str:
        return f"bit-exact on {self.device}" if self.bit_exact else f"≤ {self.epsilon:.0e} on {self.device}"


def check_exactness(network: Network, device: torch.device) -> Exactness:
    """Compare tiles of several shapes and batches with the whole, on the actual device and dtype.

    The backend's choice of kernels does not depend on the weights, so the result is cached for networks of one shape.
    """
    return _check_exactness(_build_of(network), device, next(network.parameters()).dtype)


@functools.lru_cache(maxsize=64)
def _check_exactness(build: _Build, device: torch.device, dtype: torch.dtype) -> Exactness:
    started = time.perf_counter()
    network, image = _trial(build, device, dtype)
    high, wide = 2 * network.axial_halo, 2 * network.halo
    each, epsilon = network.subpositions, 0.0
    with exact_convolutions(device):
        whole = network.predict(image)
        for rows, top, left, height, width in (
            (3, 0, 0, HEIGHT, WIDTH),
            (1, 0, 0, 1, 1),
            (1, 5, 7, 17, 40),
            (2, 31, 3, 33, 53),
        ):
            tile = network.predict(image[:rows, :, top : top + height + high, left : left + width + wide])
            crop = whole[:rows, :, top * each : (top + height) * each, left : left + width]
            epsilon = max(epsilon, float((tile - crop).abs().max()))
    found = Exactness(device.type, epsilon)
    logger.debug("Tiles of network %s with %d filters: %s (%.2f s)", *build[:2], found, time.perf_counter() - started)
    return found


def device_for(network: Network, name: str, dtype: torch.dtype = torch.float32) -> torch.device:
    """Return the device called ``name`` after it has computed the same as the CPU, and the same bits twice.

    If a GPU does not, ``auto`` is the CPU, with a warning.

    Raises
    ------
    ArgumentError
        If the device is not available, or was named and is not reliable.
    """
    device = choose_device(name)
    remedy = "Update the driver of the GPU, and torch."
    if is_spoilt(device):
        problem, remedy = SPOILT, "Start this program again to use the GPU."
    else:
        problem = "" if device.type == "cpu" else unreliable(_build_of(network), device, dtype)
    if not problem:
        return device
    if name != "auto":
        raise ArgumentError(problem, "Choose cpu or auto.", setting="device")
    warn_once(f"{problem} The CPU is used. {remedy}")
    return torch.device("cpu")


@functools.lru_cache(maxsize=64)
def unreliable(build: _Build, device: torch.device, dtype: torch.dtype) -> str:
    """Return why the results of a device cannot be used, as a sentence; empty if they can."""
    try:
        network, image = _trial(build, device, dtype)
        with exact_convolutions(device):
            one, other = (network.predict(image).cpu() for _ in range(2))
    except (RuntimeError, TypeError) as error:  # an operation that the device does not have, or too little memory
        reason = str(error).partition("\n")[0][:200]
        return f"The device {device.type} cannot compute this network ({reason})."
    if not torch.equal(one, other):
        return f"The device {device.type} computes other bits each time, so tiles would not fit together."
    network, image = _trial(build, torch.device("cpu"), dtype)
    expected = network.predict(image)
    far = float((one - expected).abs().max() / expected.abs().max())
    if not far <= MOST_DIFFERENCE:
        return f"The device {device.type} computes values that differ from those of the CPU by up to {far:.1g} of them."
    return ""


def canonical_tile(network: Network, sizes: Sequence[IntTriple], device: torch.device) -> CanonicalTile:
    """Return the tile for a device on which bits depend on the shape, and how many go through the network at once.

    A GPU is asked with calls of that very shape whether several at once have the same bits.

    Parameters
    ----------
    network : Network
        On the device.
    sizes : sequence of (axial, side, rows)
        Sizes for a GPU, the largest first.
    device : torch.device
        Decides the size by its memory; on the CPU the tile is that of version 0.1.0.
    """
    tile = CanonicalTile.of(network, sizes, memory_of(device))
    if device.type == "cpu":
        return tile
    return in_batches(tile, _build_of(network), device, next(network.parameters()).dtype)


@functools.lru_cache(maxsize=64)
def in_batches(tile: CanonicalTile, build: _Build, device: torch.device, dtype: torch.dtype) -> CanonicalTile:
    """Return the tile, several at once if that changes no bits and fits into memory."""
    most = 1
    try:
        network, image = _trial(build, device, dtype, (2 * tile.rows, tile.axial, tile.side))
        tiles = image.split(tile.rows)
        elements = tiles[0].numel() * network.filters
        with watched(device), exact_convolutions(device):
            found = [network.predict(one) for one in tiles]
            while most < MOST_TOGETHER and 2 * most * elements < MOST_ELEMENTS:
                several = network.predict(torch.cat(tiles * most)).split(tile.rows)
                if not all(itertools.starmap(torch.equal, zip(several, found * most, strict=True))):
                    break
                most *= 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    give_memory_back(device)
    logger.info("%s on %s: the same bits with up to %d at once", tile, device, most)
    return replace(tile, together=most)


def same_bits_side_by_side(network: Network, device: torch.device, size: int) -> bool:
    """Return whether ``size`` threads at the same time, each with a part of torch's threads, give the same bits."""
    dtype = next(network.parameters()).dtype
    return _same_bits(_build_of(network), device, dtype, size, torch.get_num_threads())


@functools.lru_cache(maxsize=64)
def _same_bits(build: _Build, device: torch.device, dtype: torch.dtype, size: int, threads: int) -> bool:
    network, image = _trial(build, device, dtype)

    def predict(image: Tensor) -> Tensor:
        with own_stream(device):
            return network.predict(image).cpu()

    workers = ThreadMap(size)
    try:
        with exact_convolutions(device):
            whole = network.predict(image).cpu()
            same = all(torch.equal(whole, found.result()) for _, found in workers.map(predict, [image] * size))
    finally:
        workers.dismiss()
    logger.debug("%d boxes at the same time on %d threads: %s bits", size, threads, "same" if same else "other")
    return same


def _build_of(network: Network) -> _Build:
    return network.kind, network.filters, network.blocks, network.kernel, network.subpositions


def _trial(
    build: _Build, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int] = (3, HEIGHT, WIDTH)
) -> tuple[Network, Tensor]:
    """Return a network with these arguments, and images (n, 1, axial, lateral) of noise whose outputs have ``shape``.

    The outputs of an axial sample count as one row.
    """
    # All is drawn on the CPU, so that every device gets the same; a GPU has random numbers of its own.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = build_network(*build).to(dtype=dtype)
        torch.nn.init.normal_(network.tail.weight, std=0.1)  # an untrained tail is zero: every tile would agree
        high, wide = 2 * network.axial_halo, 2 * network.halo
        image = torch.randn(shape[0], 1, shape[1] + high, shape[2] + wide, dtype=dtype)
    network, image = network.to(device), image.to(device)
    use_channels_last(network)
    network.requires_grad_(False)
    return network, image
