"""The device that computes: a GPU if it works, else the CPU."""

from __future__ import annotations

import functools
import logging
import platform
import warnings
from typing import Any

import torch

from napari_cropeq.core.devices.out_of_memory import is_out_of_memory
from napari_cropeq.errors import ArgumentError

__all__ = ["DEVICES", "choose_device", "memory_of", "processor_of", "warn_once"]

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
AUTOMATIC = ("cuda", "mps")
"""What ``auto`` tries before the CPU. Many Intel GPUs share the chip with a CPU that is as fast: xpu is chosen by name.
"""

GPUS = {"cuda": "a CUDA GPU", "mps": "a GPU of an Apple processor", "xpu": "an Intel GPU"}
FREE = "Close other programs that use the GPU, then start again."
MEND = "Update the driver of the GPU, and torch with: pip install --upgrade --force-reinstall torch"


def choose_device(name: str = "auto") -> torch.device:
    """Return one of :data:`DEVICES`; ``auto`` is a GPU that works, or else the CPU.

    If there is a GPU that cannot compute, ``auto`` is the CPU, with a warning.

    Raises
    ------
    ArgumentError
        If the device is unknown or not available.
    """
    if name not in DEVICES:
        known = ", ".join(DEVICES[:-1])
        raise ArgumentError(f"There is no device {name!r}.", f"Choose {known} or {DEVICES[-1]}.", setting="device")
    if name == "cpu":
        return torch.device("cpu")
    if name != "auto" and not _is_there(name):
        raise ArgumentError(
            f"The device is {name}, but torch does not find {GPUS[name]}.", "Choose cpu or auto.", setting="device"
        )
    for kind in AUTOMATIC if name == "auto" else (name,):
        if not _is_there(kind):
            continue
        problem, remedy = _problem_of_gpu(kind)
        if not problem:
            return torch.device(kind)
        if name == kind:
            raise ArgumentError(problem, f"Choose cpu or auto. {remedy}")
        warn_once(f"{problem} The CPU is used. {remedy}")
    return torch.device("cpu")


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory that a device has in total; 0 for the CPU, whose memory is that of all programs."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return int(_module(device.type).get_device_properties(device).total_memory) if device.type != "cpu" else 0


def processor_of(device: torch.device) -> str:
    """Return the name of the processor that a device is: bits may differ from one to another."""
    if device.type == "mps" and _is_there("mps") and hasattr(torch.backends.mps, "get_name"):
        return str(torch.backends.mps.get_name())  # such as Apple M4
    if device.type in ("cpu", "mps"):
        return platform.processor() or platform.machine()
    return str(_module(device.type).get_device_name(device))


def _module(kind: str) -> Any:
    return {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}[kind]


def _is_there(kind: str) -> bool:
    return bool(_module(kind).is_available())


@functools.cache
def _problem_of_gpu(kind: str) -> tuple[str, str]:
    """Return why a GPU cannot compute, and the remedy; nothing if it can. Tried once, with a convolution."""
    try:
        image = torch.ones(1, 1, 8, 8, device=kind)  # (N, C, H, W)
        torch.nn.functional.conv2d(image, image[..., :3, :3]).sum().item()
    except Exception as error:
        logger.info("The GPU cannot compute", exc_info=True)
        lines = (line.strip().rstrip(".") for line in str(error).splitlines())
        reason = next(filter(None, lines), type(error).__name__)
        return f"The GPU cannot compute ({reason[:200]}).", FREE if is_out_of_memory(error) else MEND
    return "", ""


@functools.cache
def warn_once(text: str) -> None:
    """Warn once: napari shows a notification, the command line and scripts print it."""
    warnings.warn(text, RuntimeWarning, stacklevel=3)
