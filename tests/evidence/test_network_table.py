"""The table of networks: sizes counted in the networks themselves, measured speeds."""

from __future__ import annotations

import json

import pytest
import torch

from conftest import random_network
from napari_cropeq.cli.main import main
from napari_cropeq.core.network import NETWORKS, work
from napari_cropeq.evidence import network_table
from napari_cropeq.evidence.network_table import network_facts


@pytest.mark.parametrize("shape", [(1, 1), (24, 40)], ids=["1x1", "24x40"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_work_equals_that_of_the_convolutions(kind, shape):
    network, counted = random_network(kind, filters=3, factor=4), []

    def count(conv, _, output):
        counted.append(output.numel() * conv.weight[0].numel())

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    rows, columns = shape
    network(torch.zeros(1, 1, rows + 2 * network.axial_halo, columns + 2 * network.halo))
    assert work(network, rows, columns) == sum(counted)


# From Table 1 of the paper: 16 and 66 convolutions, receptive fields of 33 and 133 px.
PAPER = {"valid": (16, 33, 32), "padded": (66, 133, 0), "subpixel": (16, 33, 32)}


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(network_table, "SECONDS", 0.01)
    assert main(["info", "--networks", "--filters", "4", "--json", "--device", "cpu"]) == 0
    facts = {row["network"]: row for row in json.loads(capsys.readouterr().out)["networks"]}
    assert {kind: (f["layers"], f["receptive_field"], f["shrink"]) for kind, f in facts.items()} == PAPER
    for kind, fact in facts.items():
        assert fact["patches_per_second"] > 0 and fact["voxels_per_second"] > 0
        assert (fact["work_in_tiles"] > fact["work"]) == (kind != "padded")


def test_parameters_of_the_papers_network(monkeypatch):
    """3 x 3 kernels: 1 to 256, fourteen times 256 to 256, 256 to 1; a bias each."""
    monkeypatch.setattr(network_table, "_training_rate", lambda *_: 1.0)
    monkeypatch.setattr(network_table, "_inference_rate", lambda *_: 1.0)
    facts = {fact.network: fact for fact in network_facts(256, 4.0)}
    weights = 9 * (256 + 14 * 256**2 + 256)
    assert facts["valid"].parameters == weights + 15 * 256 + 1
    assert facts["valid"].work == weights and facts["padded"].work == 9 * (256 + 64 * 256**2 + 256)
    assert facts["subpixel"].work < weights / 4


WRONG = [
    pytest.param([], "There is neither a file nor --networks. Give one of them.", id="nothing"),
    pytest.param(["m.safetensors", "--networks"], "A file and --networks are given. Give one of them.", id="both"),
    pytest.param(["--networks", "--filters", "0"], "1 to 1024 filters, not 0", id="filters"),
    pytest.param(["--networks", "--factor", "1"], "The factor 1 is not above 1", id="factor"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_unsuitable_arguments_are_refused_in_one_line(capsys, words, message):
    assert main(["info", *words]) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("cropeq: ") and printed.count("\n") == 1
