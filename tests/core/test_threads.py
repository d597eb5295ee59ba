"""The number of threads is the fastest one, and is chosen again when steps become slower."""

from __future__ import annotations

import pytest

from napari_cropeq.core.training.threads import LEAST_STEPS, TRIED, ThreadChoice

# seconds of a step by number of threads, before and after another program starts
MACHINES = [
    pytest.param(4, {4: 0.3, 2: 0.5, 1: 0.9}, {4: 0.3, 2: 0.5, 1: 0.9}, (4, 4), id="quiet"),
    pytest.param(4, {4: 3.0, 2: 2.0, 1: 0.9}, {4: 3.0, 2: 2.0, 1: 0.9}, (1, 1), id="busy"),
    pytest.param(4, {4: 0.95, 2: 0.9, 1: 1.0}, {4: 0.95, 2: 0.9, 1: 1.0}, (4, 4), id="no-difference"),
    pytest.param(2, {2: 0.5, 1: 0.9}, {2: 9.0, 1: 0.9}, (2, 1), id="becomes-busy"),
    pytest.param(2, {2: 9.0, 1: 0.9}, {2: 0.5, 1: 2.0}, (1, 2), id="becomes-slow-alone"),
    pytest.param(1, {1: 0.9}, {1: 9.0}, (1, 1), id="one-core"),
    pytest.param(6, {6: 0.5, 3: 0.2, 1: 0.9}, {6: 0.5, 3: 0.2, 1: 0.9}, (3, 3), id="half-of-six"),
]


@pytest.mark.parametrize(("most", "before", "after", "expected"), MACHINES)
def test_the_fastest_number_is_used(most, before, after, expected):
    choice, used = ThreadChoice(most), []
    for seconds in (before, after):
        for _ in range(2 * LEAST_STEPS):
            choice.count(seconds[choice.number])
        used.append(choice.number)
    assert tuple(used) == expected


def test_a_comparison_takes_few_steps():
    choice = ThreadChoice(8)
    tried = []
    for _ in range(100):
        tried.append(choice.number)
        choice.count({8: 1.0, 4: 0.5, 2: 0.7, 1: 1.0}[choice.number])
    assert tried[: 4 * TRIED] == [n for n in (8, 4, 2, 1) for _ in range(TRIED)]
    assert set(tried[4 * TRIED :]) == {4}


def test_a_slow_first_step_does_not_count():
    """torch prepares its kernels in it."""
    choice = ThreadChoice(2)
    for seconds in (30.0, 0.5, 0.5, 0.9, 0.9, 0.9, 0.5):
        choice.count(seconds)
    assert choice.number == 2


def test_one_slow_step_is_no_reason_to_compare():
    choice = ThreadChoice(2)
    for step in range(3 * LEAST_STEPS):
        choice.count((2.0 if step == 2 * LEAST_STEPS else 0.5) if choice.number == 2 else 0.9)
        assert choice.number == 2 or step < 2 * TRIED
