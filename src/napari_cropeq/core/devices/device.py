"""The device that computes: the GPU if it works, else the CPU."""

from __future__ import annotations

import functools
import logging
import warnings

import torch

from napari_cropeq.core.devices.out_of_memory import is_out_of_memory
from napari_cropeq.errors import ArgumentError

__all__ = ["choose_device"]

logger = logging.getLogger(__name__)

FREE = "Close other programs that use the GPU, then start again."
MEND = "Update the driver of the GPU, and torch with: pip install --upgrade --force-reinstall torch"


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``auto``, ``cpu`` or ``cuda``.

    If there is a GPU that cannot compute, ``auto`` is the CPU, with a warning.

    Raises
    ------
    ArgumentError
        If the device is unknown or not available.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"There is no device {name!r}.", "Choose auto, cpu or cuda.", setting="device")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if name == "auto":
            return torch.device("cpu")
        raise ArgumentError("The device is cuda, but torch finds no CUDA GPU.", "Choose cpu or auto.", setting="device")
    problem, remedy = _problem_of_gpu()
    if not problem:
        return torch.device("cuda")
    if name == "cuda":
        raise ArgumentError(problem, f"Choose cpu or auto. {remedy}")
    _warn(f"{problem} The CPU is used. {remedy}")
    return torch.device("cpu")


@functools.cache
def _problem_of_gpu() -> tuple[str, str]:
    """Return why the GPU cannot compute, and the remedy; nothing if it can. Tried once, with a convolution."""
    try:
        image = torch.ones(1, 1, 8, 8, device="cuda")  # (N, C, H, W)
        torch.nn.functional.conv2d(image, image[..., :3, :3]).sum().item()
    except Exception as error:
        logger.info("The GPU cannot compute", exc_info=True)
        lines = (line.strip().rstrip(".") for line in str(error).splitlines())
        reason = next(filter(None, lines), type(error).__name__)
        return f"The GPU cannot compute ({reason[:200]}).", FREE if is_out_of_memory(error) else MEND
    return "", ""


@functools.cache
def _warn(text: str) -> None:
    """Warn once: napari shows a notification, the command line and scripts print it."""
    warnings.warn(text, RuntimeWarning, stacklevel=3)
