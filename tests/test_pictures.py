"""The scripts that make pictures of the documentation: what they measure and write."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def script():
    """Return a function that imports a script by name."""
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module
    sys.path.remove(str(SCRIPTS))


def test_a_stride_inside_a_network_depends_on_where_a_crop_starts(script):
    pictures = script("exactness_pictures")
    torch = pictures.torch
    torch.manual_seed(0)
    network = pictures.ValidNetwork(filters=4)
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    assert pictures.phases(network, network.halo, range(4)) == [0, 0, 0, 0]
    even, odd, also_even, also_odd = pictures.phases(pictures.Strided(), 1, range(4))
    assert max(even, also_even) < 1e-5 < 0.01 < min(odd, also_odd)


def test_the_figure_of_tiles_is_drawn(script, tmp_path):
    pictures = script("exactness_pictures")
    pictures.draw_tiles(pictures.ValidNetwork(filters=1), tmp_path / "tiles.png")
    with Image.open(tmp_path / "tiles.png") as image:
        assert image.width == pictures.WIDE * pictures.DPI


def frame(animation, level: int, seconds: float):
    """Return a frame of one colour."""
    return animation.Frame(Image.fromarray(np.full((8, 12, 3), level, np.uint8)), seconds)


def test_equal_frames_become_one(script, tmp_path):
    animation = script("preview_animation")
    animation.write_gif(
        [frame(animation, *values) for values in ((10, 0.1), (10, 0.3), (200, 0.05))], tmp_path / "a.gif"
    )
    with Image.open(tmp_path / "a.gif") as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            durations.append(image.info["duration"])
    assert durations == [400, 50]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [((2.0, 4.0), (1.0, 2.0)), ((0.5, 1.0), (0.5, 1.0)), ((0.01, 0.03, 0.05, 0.02), (0.09, 0.02))],
    ids=["slow", "fast", "many"],
)
def test_slow_frames_are_shown_faster(script, seconds, shown):
    animation = script("preview_animation")
    quick = animation.quicken([frame(animation, 0, value) for value in seconds], most=3.0)
    assert [one.seconds for one in quick] == pytest.approx(shown)
