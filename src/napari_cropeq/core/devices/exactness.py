"""Test whether tiles have the same bits as the whole on a device."""

from __future__ import annotations

import functools
import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from napari_cropeq.core.network import Network, build_network, use_channels_last
from napari_cropeq.core.thread_map import ThreadMap

__all__ = ["Exactness", "check_exactness", "reproducible", "same_bits_side_by_side"]

logger = logging.getLogger(__name__)

HEIGHT, WIDTH = 64, 56  # of the test image

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
    with reproducible(device):
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


def same_bits_side_by_side(network: Network, device: torch.device, size: int) -> bool:
    """Return whether ``size`` threads at the same time, each with a part of torch's threads, give the same bits."""
    dtype = next(network.parameters()).dtype
    return _same_bits(_build_of(network), device, dtype, size, torch.get_num_threads())


@functools.lru_cache(maxsize=64)
def _same_bits(build: _Build, device: torch.device, dtype: torch.dtype, size: int, threads: int) -> bool:
    network, image = _trial(build, device, dtype)
    whole, workers = network.predict(image), ThreadMap(size)
    try:
        same = all(torch.equal(whole, found.result()) for _, found in workers.map(network.predict, [image] * size))
    finally:
        workers.dismiss()
    logger.debug("%d boxes at the same time on %d threads: %s bits", size, threads, "same" if same else "other")
    return same


def _build_of(network: Network) -> _Build:
    return network.kind, network.filters, network.blocks, network.kernel, network.subpositions


def _trial(build: _Build, device: torch.device, dtype: torch.dtype) -> tuple[Network, torch.Tensor]:
    """Return a network with these arguments, and three images (3, 1, axial, lateral) of noise for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(*build).to(device=device, dtype=dtype)
        torch.nn.init.normal_(network.tail.weight, std=0.1)  # an untrained tail is zero: every tile would agree
        high, wide = 2 * network.axial_halo, 2 * network.halo
        image = torch.randn(3, 1, HEIGHT + high, WIDTH + wide, dtype=dtype).to(device)
    use_channels_last(network)
    network.requires_grad_(False)
    return network, image


def reproducible(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which CUDA convolves deterministically, without autotuning and without TF32."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
