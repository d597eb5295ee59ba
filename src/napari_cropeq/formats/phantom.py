"""Draw random vessels and neurons on an isotropic grid."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Points = NDArray[np.float64]  # (n, 3): z, y, x in voxels
Volume = NDArray[np.float32]  # (z, y, x)

_WALL = 0.8  # σ of a vessel's stained wall, in voxels
_TREES = (10.0, 7.5, 6.0, 5.5, 5.0, 4.5, 4.0, 4.0, 3.5, 3.5, 3.0, 3.0)  # radii at the root, in voxels
_REACH = 3.0  # how far beyond its radius a vessel's distance is drawn, in voxels


def draw_vessels(rng: np.random.Generator, shape: tuple[int, int, int]) -> Volume:
    """Draw branching vessels whose walls are stained and whose lumen is nearly dark.

    Parameters
    ----------
    rng
        Random number generator.
    shape
        (z, y, x)

    Returns
    -------
    numpy.ndarray
        (z, y, x), float32, 0 (nothing) to about 1 (a bright wall).
    """
    points, radii = _joined([_vessel_tree(rng, shape, radius) for radius in _TREES])
    distance = np.full(shape, 2 * _REACH, np.float32)  # to the nearest wall; negative inside
    for index, gap in _around(points, radii, shape, _REACH):
        np.minimum.at(distance.reshape(-1), index, gap)
    wall = np.exp(-0.5 * (distance / np.float32(_WALL)) ** 2)
    lumen = np.clip(0.5 - distance, 0, 1)
    image: Volume = np.maximum(wall, np.float32(0.12) * lumen) * _patchy(rng, shape, 0.3, 1.0, cell=30)
    return image


def draw_neurons(rng: np.random.Generator, shape: tuple[int, int, int]) -> Volume:
    """Draw cell bodies with tapering, branching processes, and thin fibres passing by.

    Parameters
    ----------
    rng
        Random number generator.
    shape
        (z, y, x)

    Returns
    -------
    numpy.ndarray
        (z, y, x), float32, 0 (nothing) to 1 (the brightest cell body).
    """
    image = np.zeros(shape, np.float32)
    for centre in _scattered(rng, shape, count=30, apart=34.0):
        brightness = rng.uniform(0.25, 1.0)
        bodies, arbors = _neuron(rng, centre)
        _brighten(image, bodies, brightness)
        _brighten(image, arbors, 0.8 * brightness)
    for _ in range(40):
        start = rng.uniform(-0.1, 1.1, 3) * shape
        _brighten(image, _fibre(rng, start, length=320.0), rng.uniform(0.1, 0.5))
    image *= _patchy(rng, shape, 0.55, 1.0, cell=5)
    return image


def draw_background(rng: np.random.Generator, shape: tuple[int, int, int]) -> Volume:
    """Draw the slowly varying glow of tissue.

    Returns
    -------
    numpy.ndarray
        (z, y, x), float32, from 0.3 to 1.
    """
    return _patchy(rng, shape, 0.3, 1.0, cell=40)


def _patchy(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float, cell: int) -> Volume:
    """Make a smooth random field between low and high, with features of about `cell` voxels."""
    field = rng.uniform(low, high, [math.ceil(size / cell) + 1 for size in shape]).astype(np.float32)
    for size in reversed(shape):  # the last axis first: each step moves the axis it fills to the front
        knots = np.arange(field.shape[-1])
        near = np.clip(1 - np.abs(np.arange(size)[:, None] / cell - knots), 0, 1).astype(np.float32)
        field = np.tensordot(near * near * (3 - 2 * near), field, axes=(1, 2))  # weights of sum 1, smooth at the knots
    return np.ascontiguousarray(field)


def _path(rng: np.random.Generator, start: Points, heading: Points, length: float, step: float, bend: float) -> Points:
    """Return a random walk (n, 3) from start."""
    count = max(int(length / step), 2)
    turns = np.cumsum(rng.normal(0, bend * math.sqrt(step), (count, 3)), axis=0)
    headings = heading / np.linalg.norm(heading) + turns
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    return start + np.cumsum(headings * step, axis=0)


def _forked(rng: np.random.Generator, path: Points, angle: float) -> Points:
    """Choose a random heading at an angle (radians) to the end of a path."""
    ahead = path[-1] - path[-2]
    ahead /= np.linalg.norm(ahead)
    aside = np.cross(ahead, rng.normal(size=3))
    heading: Points = math.cos(angle) * ahead + math.sin(angle) * aside / np.linalg.norm(aside)
    return heading


def _joined(parts: list[tuple[Points, Points]]) -> tuple[Points, Points]:
    return np.concatenate([points for points, _ in parts]), np.concatenate([radii for _, radii in parts])


def _vessel_tree(rng: np.random.Generator, shape: tuple[int, int, int], radius: float) -> tuple[Points, Points]:
    """Grow a vessel inwards from a random side; at forks the radii follow Murray's law (r³ = r₁³ + r₂³)."""
    size = np.array(shape, float)
    start = rng.uniform(0.1, 0.9, 3) * size
    side = int(rng.integers(1, 3))
    start[side] = rng.choice([-0.08, 1.08]) * size[side]
    heading = (rng.uniform(0.3, 0.7, 3) * size - start) * [1.5, 1, 1]
    grown = []
    buds = [(start, heading, radius, 0)]
    while buds:
        begin, ahead, r, depth = buds.pop()
        last = r < 2.2 or depth > 6
        length = rng.uniform(60, 140) if last else rng.uniform(20, 36) * r**0.5
        step = max(0.5, r / 4)
        path = _path(rng, begin, ahead, length, step, bend=0.13 if last else 0.09)
        swelling = 1 + 0.12 * np.sin(np.arange(len(path)) * step / rng.uniform(6, 12))
        if last:  # ends as a sprout, not as a cut
            swelling *= np.minimum(1, 0.2 + np.arange(len(path), 0, -1) * step / 12)
        grown.append((path, r * swelling))
        if last:
            continue
        share = rng.uniform(0.3, 0.7)
        for part, angle in ((share, rng.uniform(0.4, 1.1)), (1 - share, rng.uniform(0.4, 1.1))):
            buds.append((path[-1], _forked(rng, path, angle), r * part ** (1 / 3), depth + 1))
    return _joined(grown)


def _scattered(rng: np.random.Generator, shape: tuple[int, int, int], count: int, apart: float) -> list[Points]:
    """Choose random places with a minimum distance (voxels) from each other."""
    chosen: list[Points] = []
    for _ in range(400):
        place = rng.uniform(0.0, 1.0, 3) * shape
        if all(np.linalg.norm(place - other) > apart for other in chosen):
            chosen.append(place)
        if len(chosen) == count:
            break
    return chosen


def _neuron(rng: np.random.Generator, centre: Points) -> tuple[tuple[Points, Points], tuple[Points, Points]]:
    """Make a cell body and its processes, each as (points, radii)."""
    radius = rng.uniform(6.0, 9.5)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    along = np.linspace(-0.5, 0.9, 9)  # a row of shrinking balls: a pear
    body = centre + along[:, None] * radius * axis, radius * (1 - 0.45 * np.abs(along) ** 1.3)
    arbors = []
    for _ in range(int(rng.integers(3, 6))):
        heading = rng.normal(size=3) + axis
        buds = [(centre + 0.7 * radius * heading / np.linalg.norm(heading), heading, rng.uniform(1.5, 2.6), 0)]
        while buds:
            begin, ahead, r, depth = buds.pop()
            path = _path(rng, begin, ahead, rng.uniform(28, 60), 0.5, bend=0.1)
            arbors.append((path, np.linspace(r, 0.72 * r, len(path)) * _beads(rng, len(path))))
            if depth < 3 and r > 0.6:
                for _ in range(2):
                    thinner = 0.72 * r * rng.uniform(0.75, 0.95)
                    buds.append((path[-1], _forked(rng, path, rng.uniform(0.25, 0.8)), thinner, depth + 1))
    return body, _joined(arbors)


def _fibre(rng: np.random.Generator, start: Points, length: float) -> tuple[Points, Points]:
    """Make a thin beaded fibre as (points, radii)."""
    path = _path(rng, start, rng.normal(size=3), length, 0.5, bend=0.05)
    return path, rng.uniform(0.55, 0.9) * _beads(rng, len(path))


def _beads(rng: np.random.Generator, count: int) -> Points:
    """Make radius factors with occasional swellings, like those of axons."""
    swollen = (rng.uniform(size=count) < 0.02).astype(float)
    factors: Points = 1 + 6 * ndimage.gaussian_filter1d(swollen, 3.0)
    return factors


def _brighten(image: Volume, line: tuple[Points, Points], brightness: float) -> None:
    """Draw balls along a line wherever they are brighter than the image."""
    points, radii = line
    # A line thinner than a voxel fills it partly.
    for index, gap in _around(points, radii, image.shape, 0.5):
        np.maximum.at(image.reshape(-1), index, np.float32(brightness) * np.clip(0.5 - gap, 0, 1))


def _around(
    points: Points, radii: Points, shape: tuple[int, ...], reach: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the voxels near each ball: flat indices, and the distance to its surface (negative inside)."""
    size, strides = np.array(shape), np.array([shape[1] * shape[2], shape[2], 1])
    halves = np.ceil(radii + reach).astype(int)
    inside = np.all((points > -halves[:, None]) & (points < size + halves[:, None]), axis=1)
    for half in np.unique(halves[inside]):
        span = np.arange(-half, half + 1)
        offsets = np.stack(np.meshgrid(span, span, span, indexing="ij"), -1).reshape(-1, 3)
        offsets = offsets[(offsets**2).sum(1) <= (half + 1) ** 2]
        of_size = np.flatnonzero(inside & (halves == half))
        for some in np.array_split(of_size, math.ceil(len(of_size) * len(offsets) / 500_000)):
            nearest = np.rint(points[some]).astype(np.int64)
            rest = nearest - points[some]
            squares = (rest**2).sum(1)[:, None] + 2 * rest @ offsets.T + (offsets**2).sum(1)  # (points, offsets)
            gap = np.sqrt(squares.astype(np.float32)) - radii[some, None].astype(np.float32)
            drawn = gap < reach
            edge = np.any((nearest < half) | (nearest >= size - half), axis=1)
            beside = nearest[edge, None] + offsets
            drawn[edge] &= np.all((beside >= 0) & (beside < size), axis=-1)
            yield ((nearest @ strides)[:, None] + offsets @ strides)[drawn], gap[drawn]
