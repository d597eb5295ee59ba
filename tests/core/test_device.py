"""Which device computes, also if there is a GPU that cannot."""

from __future__ import annotations

import argparse
import warnings
from importlib import resources

import pytest
import torch
import yaml

from napari_cropeq.cli.options import add_device
from napari_cropeq.cli.progress import warnings_as_sentences
from napari_cropeq.core.devices import device
from napari_cropeq.core.devices.device import choose_device, memory_of
from napari_cropeq.errors import ArgumentError

UPDATE = "pip install --upgrade --force-reinstall torch"

BROKEN = [
    pytest.param(
        RuntimeError("CUDA error: no kernel image is available for execution on the device\nFor debugging consider"),
        "The GPU cannot compute (CUDA error: no kernel image is available for execution on the device).",
        UPDATE,
        id="too-new-for-torch",
    ),
    pytest.param(
        AssertionError("Torch not compiled with CUDA enabled"),
        "The GPU cannot compute (Torch not compiled with CUDA enabled).",
        UPDATE,
        id="other-build",
    ),
    pytest.param(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        "The GPU cannot compute (CUDA out of memory. Tried to allocate 2.00 MiB).",
        "Close other programs that use the GPU",
        id="used-by-others",
    ),
]


@pytest.fixture
def gpu(monkeypatch, request):
    """A GPU that torch finds, and whose first computation fails."""

    def fail(*_, **__):
        raise request.param

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fail)
    for remembered in (device._problem_of_gpu, device.warn_once):
        remembered.cache_clear()
    yield
    for remembered in (device._problem_of_gpu, device.warn_once):
        remembered.cache_clear()


@pytest.mark.parametrize(("gpu", "problem", "remedy"), BROKEN, indirect=["gpu"])
def test_the_cpu_takes_the_place_of_a_gpu_that_cannot_compute(gpu, problem, remedy):
    with pytest.warns(RuntimeWarning) as caught:
        assert choose_device("auto").type == "cpu"
    (text,) = [str(warning.message) for warning in caught]
    assert text.startswith(f"{problem} The CPU is used. ") and remedy in text
    assert choose_device("auto").type == "cpu", "a second warning would be an error"

    with pytest.raises(ArgumentError) as error:
        choose_device("cuda")
    assert error.value.problem == problem and error.value.remedy.startswith("Choose cpu or auto. ")


def test_the_command_line_prints_its_warning_as_a_sentence():
    with warnings_as_sentences():
        ours = warnings.formatwarning("The CPU is used.", RuntimeWarning, device.__file__, 7)
        other = warnings.formatwarning("Of another package.", UserWarning, "/elsewhere/module.py", 7)
    assert ours == "cropeq: The CPU is used.\n"
    assert other == "/elsewhere/module.py:7: UserWarning: Of another package.\n"


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ArgumentError, match=r"There is no device 'tpu'\. Choose auto, cpu, cuda, mps or xpu"):
        choose_device("tpu")


GPUS = [
    pytest.param("cuda", torch.cuda.is_available, "a CUDA GPU", id="cuda"),
    pytest.param("mps", torch.backends.mps.is_available, "a GPU of an Apple processor", id="mps"),
    pytest.param("xpu", torch.xpu.is_available, "an Intel GPU", id="xpu"),
]


@pytest.mark.parametrize(("name", "is_there", "words"), GPUS)
def test_a_gpu_is_used_or_said_to_be_missing(name, is_there, words):
    if is_there():
        assert choose_device(name).type == name and memory_of(choose_device(name)) > 0
    else:
        with pytest.raises(ArgumentError, match=f"The device is {name}, but torch does not find {words}"):
            choose_device(name)


def test_every_list_of_devices_is_the_same():
    """The command line and the manifest do not import torch."""
    parser = argparse.ArgumentParser()
    add_device(parser)
    (option,) = (action for action in parser._actions if action.dest == "device")
    manifest = yaml.safe_load(resources.files("napari_cropeq").joinpath("napari.yaml").read_text(encoding="utf-8"))
    chosen = manifest["contributions"]["configurations"]["computing"]["properties"]["device"]["enum"]
    assert tuple(option.choices) == tuple(chosen) == device.DEVICES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda():
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
