"""The network as an ONNX file, and its trial: the file is run as other programs run it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.predict import Predictor
from napari_cropeq.run.publish.stack_network import StackNetwork

__all__ = ["OPSET", "WEIGHTS", "Trial", "export_network", "try_network"]

OPSET = 18
"""Version of ONNX's operators: an early one, for programs that are not up to date."""

WEIGHTS = "weights.onnx"
"""Name of the file."""


@dataclass(frozen=True)
class Trial:
    """What the network in a file gives for an input (z, y, x), and how far that is from the package's own.

    The difference is a share of the range of intensities, inside the border that the network does not compute. Rounding
    is how far two numbers in float32 may lie apart in this range, which matters if it is far from zero.
    """

    input: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    difference: float
    rounding: float


def export_network(network: StackNetwork, path: Path) -> None:
    """Write the network as ONNX, for a stack of any size: several at once would take twice as long to export."""
    least = network.smallest_block
    sizes = {2 + axis: torch.export.Dim("zyx"[axis], min=side) for axis, side in enumerate(least)}
    with _quiet_exporter(), torch.inference_mode():
        program = torch.onnx.export(
            network,
            (torch.zeros(1, 1, *least),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["stack"],
            output_names=["result"],
            dynamic_shapes=(sizes,),
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep what torch says about itself, such as that torchvision is missing, from the user."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def try_network(path: Path, network: StackNetwork, model: Model, channel: int) -> Trial:
    """Run the network in a file, and compare what it gives with what the package itself computes."""
    import onnxruntime

    scale, predictor = model.normalisations[channel], _example(network, model, channel)
    block = network.smallest_block
    result = Box.whole([n * network.factor if axis == network.axial else n for axis, n in enumerate(block)])
    given = np.asarray(predictor.source[:, :, :] if network.interpolates else predictor.interpolated(result))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = session.run(None, {"stack": given[None, None]})[0][0, 0]
    inside = result.grow([-halo for halo in network.halo])
    difference, span = np.abs(output[inside.slices] - predictor(inside)).max(), scale.high - scale.low
    rounding = 4 * np.spacing(np.float32(max(abs(scale.low), abs(scale.high))))
    return Trial(given, output, float(difference / span), float(rounding / span))


def _example(network: StackNetwork, model: Model, channel: int) -> Predictor:
    """Return what super-resolves a small stack of smooth noise, in the intensities of the model.

    A part of the user's image might be confidential, and is not in the model file.
    """
    acquisition, scale = model.acquisition, model.normalisations[channel]
    shape = list(network.smallest_block)
    if not network.interpolates:  # as many slices as fill a block once they are interpolated
        shape[network.axial] = math.ceil(shape[network.axial] / acquisition.factor)
    noise = np.random.default_rng(0).standard_normal(shape)
    noise = ndimage.gaussian_filter(noise, [0.7 if axis == network.axial else 1.5 for axis in range(3)])
    noise = (noise - noise.min()) / np.ptp(noise)
    stack = (scale.low + (scale.high - scale.low) * noise).astype(np.float32)
    return Predictor(model.network, acquisition, stack, scale, "both", device="cpu", correction=model.correction)
