"""What the command line says: cards of files, help texts, the log, and remedies that name its options."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import pytest

from napari_cropeq.cli.hints import HINTS, sentence
from napari_cropeq.cli.main import main
from napari_cropeq.cli.options import EARLIER
from napari_cropeq.errors import ArgumentError, OutOfMemoryError, VoxelSizeError

BEFORE = Path(__file__).parents[1] / "data" / "before"
COMMANDS = ["info", "train", "export", "degrade", "evaluate", "verify", "trust", "mip"]

CARDS = [
    pytest.param(
        "source.ome.tif",
        ["source.ome.tif: image", "1 × 0.4 × 0.4 µm", "2.5 times the lateral one", "15 × 64 × 264", "next  "],
        id="image",
    ),
    pytest.param(
        "finished.ome.tif",
        [
            "result of napari-cropeq",
            "source.ome.tif, 2 × 6 × 64 × 264",
            "f3b040972261fc11, trained on 480",
            "zy planes",
        ],
        id="tiff-result",
    ),
    pytest.param(
        "finished.ome.zarr",
        ["result of napari-cropeq", "84f2c8c65635fd8d, trained on 96", "zy and zx planes", "bit-exact on cpu"],
        id="zarr-result",
    ),
    pytest.param(
        "begun.partial.ome.zarr", ["unfinished result", "% of the tiles", "begun.ome.zarr --resume"], id="unfinished"
    ),
    pytest.param("begun.ome.zarr", ["unfinished result", "% of the tiles"], id="unfinished-by-its-later-name"),
    pytest.param(
        "paper.safetensors",
        ["paper.safetensors: model", "valid, 8 filters", "480 patches", "cropeq export"],
        id="model",
    ),
    pytest.param(
        "unfinished.checkpoint.safetensors",
        ["training that was interrupted", "unfinished.safetensors --resume"],
        id="checkpoint",
    ),
]


@pytest.mark.parametrize(("name", "parts"), CARDS)
def test_info_is_a_card(capsys, name, parts):
    assert main(["info", str(BEFORE / name)]) == 0
    card = capsys.readouterr().out
    assert len(card.splitlines()) <= 12 and "{" not in card, "a card, no raw record"
    assert not [part for part in parts if part not in card]
    assert main(["info", str(BEFORE / name), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_two_examples_that_parse(capsys, monkeypatch, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and not [spelling for spelling in EARLIER if spelling in text]
    examples = [line.split() for line in text.splitlines() if line.startswith(f"  cropeq {command} ")]
    assert len(examples) == 2
    for words in examples:
        with contextlib.suppress(SystemExit):
            monkeypatch.setattr("napari_cropeq.cli.main.show_log", lambda _: contextlib.nullcontext())
            assert main(words[1:]) == 1, "its files are missing"
        assert "usage:" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "info"])
def test_the_output_is_an_option_of_one_name(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "-o, --out " in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-o", "--out", "--output"])
def test_every_spelling_of_the_output_works(tmp_path, option):
    words = ["degrade", str(BEFORE / "finished.ome.tif"), option, str(tmp_path / "a.ome.tif"), "--factor", "2"]
    assert main(words) == 0 and (tmp_path / "a.ome.tif").is_file()


@pytest.mark.parametrize(
    ("words", "levels"),
    [([], set()), (["-v"], {"INFO"}), (["-vv"], {"INFO", "DEBUG"})],
    ids=["quiet", "v", "vv"],
)
def test_the_log_is_shown_when_asked_for(tmp_path, capsys, words, levels):
    out = tmp_path / "out.ome.zarr"
    source = BEFORE / "source.ome.tif"
    code = main(
        ["export", str(source), "-m", str(BEFORE / "fast.safetensors"), "-o", str(out), "--dtype", "float32", *words]
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if " napari_cropeq." in line]
    assert code == 0 and {line.split()[2] for line in lines} == levels
    assert not logging.getLogger("napari_cropeq").isEnabledFor(logging.INFO), "as it was"


ERRORS = [
    pytest.param(
        VoxelSizeError("The file does not store a voxel size.", "Give the voxel size.", setting="voxel_size"),
        "The file does not store a voxel size. Give the correct voxel size with --voxel-size Z Y X.",
        id="hint",
    ),
    pytest.param(
        ArgumentError("The factor is 0.", "Choose a larger one."), "The factor is 0. Choose a larger one.", id="no-hint"
    ),
    pytest.param(
        OutOfMemoryError("A tile does not fit.", "Use smaller ones.", setting="memory"),
        f"A tile does not fit. {HINTS['memory']}",
        id="memory",
    ),
    pytest.param(MemoryError("4 GiB"), f"There is not enough memory (4 GiB). {HINTS['memory']}", id="built-in"),
    pytest.param(OSError(28, "No space left on device"), "[Errno 28] No space left on device", id="system"),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_an_error_is_one_sentence_with_the_remedy_of_the_command_line(error, expected):
    assert sentence(error) == expected
