"""What a result on a GPU records: more than its kind decides the bits there, and nothing more on the CPU."""

from __future__ import annotations

import pytest

from conftest import a_result, textured_volume
from napari_cropeq.compute.fingerprint import fingerprint_of
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.devices.exactness import Exactness

CASES = [
    pytest.param("cpu", None, set(), id="cpu"),
    pytest.param("cpu", (64, 64, 16), set(), id="cpu-that-is-not-bit-exact"),
    pytest.param("mps", None, {"processor", "precision"}, id="bit-exact"),
    pytest.param("mps", (256, 256, 16), {"processor", "precision", "canonical tile"}, id="canonical-tiles"),
]


@pytest.mark.parametrize(("kind", "canonical", "added"), CASES)
def test_a_fingerprint_names_what_decides_the_bits(kind, canonical, added):
    result = a_result(textured_volume((8, 20, 24)))
    before = fingerprint_of(result)
    result._predictor.exactness = Exactness(kind, 0.0)  # nothing is computed there
    result.shapes = TileShapes(0, result.planes, canonical)
    after, changed = fingerprint_of(result), {"device": kind, "exactness": f"bit-exact on {kind}"}
    assert set(after) - set(before) == added and {name: after[name] for name in before} == before | changed
    assert after.get("canonical tile", canonical) == (None if canonical is None else [*canonical]) or kind == "cpu"


@pytest.mark.parametrize(
    ("canonical", "planes", "size"),
    [
        pytest.param(None, (2,), (128, 64, 256), id="free"),
        pytest.param((64, 64, 16), (2,), (128, 64, 256), id="small"),
        pytest.param((160, 64, 16), (2,), (160, 64, 256), id="whole-tiles"),
        pytest.param((256, 256, 16), (1, 2), (256, 256, 256), id="both-planes"),
    ],
)
def test_bulk_boxes_are_whole_canonical_tiles(canonical, planes, size):
    assert TileShapes(0, planes, canonical).bulk == size
