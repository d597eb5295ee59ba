"""Limits of the networks, and the user's random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import make_predictor, textured_volume
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import MAX_FILTERS, build_network
from napari_cropeq.core.training.training import Training, TrainingConfig
from napari_cropeq.errors import ArgumentError

REFUSED = [
    pytest.param(("wide", 8, 7, 3), "There is no network 'wide'. Choose one of subpixel, valid, padded", id="kind"),
    pytest.param(("valid", 0, 7, 3), "1 to 1024 filters, not 0", id="no-filters"),
    pytest.param(("valid", -1, 7, 3), "1 to 1024 filters, not -1", id="negative-filters"),
    pytest.param(("valid", 10**9, 7, 3), "1 to 1024 filters, not 1000000000", id="huge-filters"),
    pytest.param(("valid", 8, 0, 3), "1 to 64 blocks, not 0", id="no-blocks"),
    pytest.param(("padded", 8, 10**9, 3), "1 to 64 blocks, not 1000000000", id="huge-blocks"),
    pytest.param(("valid", 8, 7, 4), "3, 5 or 7 px, not 4", id="even-kernel"),
    pytest.param(("valid", 8, 7, 10**9), "3, 5 or 7 px, not 1000000000", id="huge-kernel"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused_networks(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        build_network(*arguments)


def test_the_largest_network_can_be_described_without_memory():
    with torch.device("meta"):
        network = build_network("valid", MAX_FILTERS, 64, 7)
    assert network.receptive_field == 2 * 130 * 3 + 1


def test_the_users_random_numbers_do_not_change(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    source = textured_volume((6, 64, 64))
    predictor = make_predictor(source, 2, filters=5)
    training = Training(source, predictor.acquisition, TrainingConfig(None, 16, filters=4, validation=4), "cpu")
    list(training.run())
    training.model({}).save(tmp_path / "model.safetensors")
    Model.load(tmp_path / "model.safetensors")
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
