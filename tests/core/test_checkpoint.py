"""Trainings that are interrupted, killed, continued, or short of memory."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from conftest import acquired, blobs, textured_volume
from napari_cropeq.cli.main import main
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.training import checkpoint as checkpoints
from napari_cropeq.core.training.checkpoint import Checkpoint
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import MismatchError, ModelFileError
from processes import Forked, cropeq

Z4 = Acquisition((4.0, 1.0, 1.0))
SOURCE = acquired(blobs((48, 96, 96)), 4)
TINY = {"minutes": None, "patches": 64, "filters": 4, "validation": 4, "batch": 8, "blocks": 2}


def training(start: Model | None = None, resume: bool = False, source=SOURCE, **options) -> Training:
    return Training(source, Z4, TrainingConfig(**(TINY | options)), "cpu", start=start, resume=resume)


def finished(one: Training) -> Training:
    for _ in one.run():
        pass
    return one


def interrupted(steps: int, **options) -> Training:
    one = training(**options)
    run = one.run()
    for _ in range(steps):
        next(run)
    run.close()
    return one


def stack_file(folder: Path) -> Path:
    data = textured_volume((12, 90, 92))
    size = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", (4.0, 1.0, 1.0), strict=True)}
    tifffile.imwrite(folder / "a.ome.tif", data, metadata={"axes": "ZYX", **size}, photometric="minisblack")
    return folder / "a.ome.tif"


def optimiser_state(one: Training) -> list[torch.Tensor]:
    state = one._weights.state(0, 0.0)
    return [state.tensors[k] for k in sorted(state.tensors) if not k.startswith("average")]


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
@pytest.mark.parametrize("kind", ["subpixel", "valid"])
def test_a_continued_training_starts_with_weights_and_optimiser(tmp_path, kind, optimiser):
    one = finished(training(network=kind, optimiser=optimiser, average=0.9))
    one.model({}).save(tmp_path / "m.safetensors")
    start = Model.load(tmp_path / "m.safetensors")
    two = training(start, network=kind, optimiser=optimiser, average=0.9)
    assert len(optimiser_state(two)) == len(optimiser_state(one))
    assert all(torch.equal(a, b) for a, b in zip(optimiser_state(one), optimiser_state(two), strict=True))
    assert all(torch.equal(v, two._weights.average[k]) for k, v in one._weights.average.items())
    again = finished(two)
    assert (again._budget.patches, again._weights.steps) == (128, 16)
    assert again.history[0].patches > 64 and again._weights.best_loss <= one._weights.best_loss + 1e-6


def test_a_continued_training_keeps_the_best_weights():
    one = finished(training(patches=160))
    two = finished(training(one.model({}), rate=0.5, patches=16))  # a rate that ruins the weights
    assert two._weights.best_loss == pytest.approx(one._weights.best_loss)
    assert all(torch.equal(v, two.network.state_dict()[k]) for k, v in one.network.state_dict().items())


def test_an_interrupted_training_is_resumed_not_restarted():
    one = interrupted(3)
    two = training(one.model({}), resume=True)
    steps = list(two.run())
    assert [p.patches for p in steps] == [32, 40, 48, 56, 64]
    assert steps[0].fraction == 0.5 and steps[0].seconds > one._budget.seconds
    assert [p.patches for p in two.history[:3]] == [p.patches for p in one.history], "the earlier history is kept"
    third = training(one.model({}))
    assert [p.patches for p in third.run()] == list(range(32, 96, 8)), "without resume the budget starts again"


DIFFERENT = [
    pytest.param(
        {"filters": 5}, Z4, "with 4 filters, 2 blocks and kernels of 3 px, but the settings are .* 5", id="filters"
    ),
    pytest.param({"network": "valid"}, Z4, "The model to continue has network 'subpixel'", id="network"),
    pytest.param({}, Acquisition((5.0, 1.0, 1.0)), "trained for factor 4, but the volume has factor 5", id="factor"),
]


@pytest.mark.parametrize(("options", "acquisition", "message"), DIFFERENT)
def test_models_that_a_training_cannot_continue(options, acquisition, message):
    start = interrupted(1).model({})
    with pytest.raises(MismatchError, match=message):
        Training(SOURCE, acquisition, TrainingConfig(**(TINY | options)), "cpu", start=start)


def test_a_checkpoint_belongs_to_one_source_and_one_set_of_settings(tmp_path):
    one = interrupted(2)
    checkpoint = Checkpoint.beside(tmp_path / "m.safetensors", {"name": "stack"})
    assert not checkpoint.exists
    checkpoint.keep(one)
    assert not checkpoint.exists, "it is not time yet"
    checkpoint.keep(one, now=True)
    assert checkpoint.exists and checkpoint.path.name == "m.checkpoint.safetensors"
    assert checkpoint.load(one.config).state.patches == 16
    with pytest.raises(MismatchError, match=r"settings differ from those of the unfinished .* \(rate\)") as caught:
        checkpoint.load(TrainingConfig(**TINY, rate=0.5))
    assert caught.value.setting == "restart"
    with pytest.raises(MismatchError, match="is an unfinished training on 'stack', not on this volume") as caught:
        Checkpoint.beside(tmp_path / "m.safetensors", {"name": "other"}).load()
    assert caught.value.setting == "restart"
    checkpoint.path.write_bytes(b"anything")
    with pytest.raises(
        ModelFileError, match=r"is not a readable napari-cropeq model .*\. Remove it to start again"
    ) as caught:
        checkpoint.load()
    assert caught.value.setting == "restart"
    checkpoint.remove()
    assert not checkpoint.exists


HOSTILE = [
    pytest.param(None, "The model file has no training settings", id="none"),
    pytest.param([1], "The model file has no training settings", id="list"),
    pytest.param({"colour": 1}, "The model file has no training settings", id="unknown"),
    pytest.param({"filters": "4"}, "filters is '4', not int", id="text"),
    pytest.param({"filters": True}, "filters is True, not int", id="bool"),
    pytest.param({"filters": None}, "filters is None, not int", id="null"),
    pytest.param({"minutes": float("nan")}, r"\(nan minutes\) is not a positive number", id="nan"),
    pytest.param({"batch": -1}, "batch is -1, less than 1", id="range"),
    pytest.param({"schedule": "__import__('os')"}, "not one of cosine", id="choice"),
]


@pytest.mark.parametrize(("values", "message"), HOSTILE)
def test_hostile_settings_are_refused(values, message):
    with pytest.raises(ModelFileError, match=message):
        TrainingConfig.read(values)


def test_settings_survive_json():
    config = TrainingConfig.preset("light-sheet", seed=5, filters=8)
    assert TrainingConfig.read(json.loads(json.dumps(vars(config)))) == config


def keep_every_step() -> None:
    checkpoints.SECONDS = 0.0


KILLS = [pytest.param(n, id=f"kill-{n}", marks=[pytest.mark.soak] * (n > 1)) for n in range(4)]
BUDGET = 800  # patches; it is killed before it can train on all of them


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", KILLS)
@pytest.mark.slow
def test_a_killed_training_is_resumed(tmp_path, number):
    """Kill it at a random moment, perhaps while it saves: the checkpoint is complete, and --resume completes it."""
    stack, output = stack_file(tmp_path), tmp_path / "m.safetensors"
    words = ["train", str(stack), "-o", str(output), "--patches", str(BUDGET), "--filters", "4", "--device", "cpu"]
    words += ["--set", "blocks=1", "--set", "validation=4", "--resume"]
    process = cropeq(*words, prepare=keep_every_step)
    checkpoint = tmp_path / "m.checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(np.random.default_rng(number).uniform(0.05, 0.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = Model.load(checkpoint)
    (tmp_path / f"m.checkpoint.safetensors.{'0' * 16}.partial").touch()  # as if killed while it saved
    assert not output.exists() and 0 < kept.state.patches < BUDGET
    words[words.index(str(BUDGET))] = str(kept.training["recipe"]["patches"])
    assert main(words) == 0
    model = Model.load(output)
    assert BUDGET <= model.state.patches < BUDGET + 4 and model.training["losses"][0][0] <= kept.state.patches + 2000
    assert not checkpoint.exists() and not [p.name for p in tmp_path.iterdir() if "partial" in p.name]


def test_a_killed_training_loses_at_most_half_a_minute():
    assert checkpoints.SECONDS + 10 <= 30, "a step, or a validation, may pass before it is saved"


def test_an_unfinished_training_is_not_replaced_silently(tmp_path, capsys):
    stack, output = stack_file(tmp_path), tmp_path / "m.safetensors"
    words = ["train", str(stack), "-o", str(output), "--patches", "16", "--filters", "4", "--device", "cpu"]
    (tmp_path / "m.checkpoint.safetensors").write_bytes(b"anything")
    assert main(words) == 1
    assert "interrupted. Complete it with --resume, or start again with --overwrite." in capsys.readouterr().err
    assert main([*words, "--resume"]) == 1
    assert "is not a readable napari-cropeq model" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert output.exists() and not (tmp_path / "m.checkpoint.safetensors").exists()


def train_with_little(filters: int, spare: int) -> None:
    """Train with a limit of ``spare`` MiB above the memory in use, and print the result."""
    import resource

    torch.set_num_threads(1)
    config = TrainingConfig(minutes=None, patches=512, batch=256, filters=filters, validation=1)
    training = Training(SOURCE, Z4, config, "cpu")
    run = training.run()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare * 2**20,) * 2)
    try:
        steps = list(run)
    except MemoryError as error:
        print("memory", error)
    else:
        print(steps[-1].patches, training._parts.size, steps[-1].note)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's memory is Linux's")
@pytest.mark.parametrize(
    ("filters", "spares", "expected"),
    [
        pytest.param(4, [4000], r"512 256 (?!Out of memory)", id="enough"),
        # Libraries need more or less memory on each machine: one of these limits halves the batch.
        pytest.param(
            32, [700, 900, 600, 1100, 500, 1300, 300], r"512 (1|2|4|8|16|32|64|128) Out of memory: ", id="halved"
        ),
        pytest.param(
            256, [24], "memory There is too little memory to train, even with a single patch", id="too-little"
        ),
    ],
)
@pytest.mark.slow
def test_out_of_memory_halves_the_batch(filters, spares, expected):
    """In a process whose memory is limited."""
    seen = []
    for spare in spares:
        seen.append(Forked(train_with_little, filters, spare).communicate(timeout=300))
        if re.match(expected, seen[-1][0]):
            return
    pytest.fail(f"none of {spares} MiB more gave {expected!r}: {seen}")


def test_parts_of_a_batch_make_the_same_step():
    whole, parts = training(batch=16), training(batch=16)
    parts._parts.size = 3
    for one in (whole, parts):
        next(iter(one.run()))
    for a, b in zip(whole._weights.network.parameters(), parts._weights.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_training_stops_when_nothing_improves_any_more():
    flat = np.full((8, 96, 96), 100.0, np.float32)
    flat[:, :, ::40] = 101.0  # nothing to learn along the other axis, soon nothing along this one
    one = training(source=flat, patches=100_000, epoch=32, patience=3, improvement=0.2, match_noise=False)
    steps = list(one.run())
    assert steps[-1].fraction == 1 and steps[-1].patches < 50_000
    assert steps[-1].note.startswith("Converged: no improvement over 3 validations")
    never = training(source=flat, patches=800, epoch=32, patience=0, improvement=0.2, match_noise=False)
    assert list(never.run())[-1].patches == 800
