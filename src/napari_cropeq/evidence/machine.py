"""Description of the machine of a measurement: processor, threads, versions, load."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from napari_cropeq import __version__

__all__ = ["describe_machine", "load_average"]


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, threads and versions, in values that JSON can hold."""
    packages = ("torch", "numpy", "scipy", "scikit-image")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "versions": {
            "napari-cropeq": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def load_average() -> list[float] | None:
    """Return the load of the machine over the last 1, 5 and 15 minutes; None if the system does not report it."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
