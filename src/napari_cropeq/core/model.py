"""A trained model in one safetensors file: weights, acquisition, normalisation, training, provenance, state."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save

from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition
from napari_cropeq.core.imaging.back_projection import WIDEST
from napari_cropeq.core.model_records import check_records, is_number
from napari_cropeq.core.network import LEVELS, ErrorTail, Network, build_network, use_channels_last
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.whole_file import path_of, write_whole
from napari_cropeq.errors import (
    AccessError,
    ArgumentError,
    CropeqError,
    MismatchError,
    MissingFileError,
    ModelFileError,
)
from napari_cropeq.short_repr import ShortRepr, duration, quality_of

__all__ = ["Model", "State"]

FORMAT = "napari-cropeq model 2"
SUFFIX = ".safetensors"
CHOOSE = f"Choose a model file that napari-cropeq has saved, ending in {SUFFIX}."
MAX_BYTES = 2**31
STATE = "state/"
ERROR = "error/"
STATE_GROUPS = ("last", "average", "exp_avg", "exp_avg_sq")
"""The last weights, their running average, and the optimiser's two moments."""


@dataclass(frozen=True)
class State:
    """State of a training: what is needed to resume it, in addition to the best weights.

    Parameters
    ----------
    tensors : mapping
        ``GROUP/NAME`` to a tensor with the shape of the weight NAME, on the CPU; ``STATE_GROUPS`` has the groups.
    steps : int
        Steps of the optimiser.
    patches : int
        Patches seen.
    seconds : float
        Time spent, s.
    """

    tensors: Mapping[str, torch.Tensor]
    steps: int
    patches: int
    seconds: float

    def group(self, name: str) -> dict[str, torch.Tensor]:
        """Return the tensors of one group by the names of the weights; empty if there is no such group."""
        prefix = f"{name}/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@dataclass(repr=False)
class Model(ShortRepr):
    """A trained network with its acquisition and intensity scale, and a record of its training.

    Parameters
    ----------
    network : Network
        Trained network, on the CPU.
    acquisition : Acquisition
        Grid and slice profile of the volume it was trained on.
    normalisations : sequence of Normalisation
        Intensity scale of each channel it was trained on; other images are measured again.
    training : mapping
        TrainingConfig, noise, losses; JSON values.
    provenance : mapping
        Source name and shape, versions; JSON values.
    state : State, optional
        State of its training, to resume it.
    correction : float
        Width of the filter that keeps local mean intensities, px; 0 for none. See
        :class:`napari_cropeq.core.imaging.back_projection.BackProjection`.
    error_tail : ErrorTail, optional
        Makes the expected error of a result; models of earlier versions have none.
    """

    network: Network
    acquisition: Acquisition
    normalisations: Sequence[Normalisation]
    training: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    state: State | None = None
    correction: float = 0.0
    error_tail: ErrorTail | None = None

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of weights and architecture, equal for equal networks."""
        return _digest(json.dumps(_architecture(self.network)), self.network.state_dict())

    def _facts(self) -> dict[str, str]:
        network, acquisition = self.network, self.acquisition
        size = " × ".join(f"{step:.4g}" for step in acquisition.voxel_size)
        source = self.provenance.get("source", {})
        shape = " × ".join(str(length) for length in source.get("shape", ()))
        on = [str(source[name]) for name in ("name", "dtype") if source.get(name)]
        patches, seconds = self.training.get("patches"), self.training.get("seconds")
        spent = "not recorded" if patches is None else f"{patches:,} patches in {duration(seconds or 0)}"
        return {
            "network": f"{network.kind}, {network.filters} filters, {network.blocks} blocks",
            "factor": f"{acquisition.factor:.4g} along {AXIS_NAMES[acquisition.axial]}, {size} {acquisition.unit}",
            "trained on": ", ".join([*on[:1], *([shape] if shape else []), *on[1:]]) or "not recorded",
            "training": spent,
            **quality_of(self.training),
            "fingerprint": self.fingerprint,
        }

    def check_fits(self, acquisition: Acquisition) -> None:
        """Raise MismatchError if the model was trained for another factor than that of ``acquisition``."""
        own, other = self.acquisition.factor, acquisition.factor
        if abs(own - other) > 0.01 * other:
            raise MismatchError(
                f"The model was trained for factor {own:.4g}, but the volume has factor {other:.4g}.",
                "Train on this volume, or correct its voxel size.",
            )

    def save(self, path: str | Path) -> None:
        """Write the model; an existing file is replaced only once the new one is complete.

        Raises
        ------
        WrongTypeError, ArgumentError
            If it is not a path, or the name does not end in ``.safetensors``.
        OSError
            If the folder cannot be written.
        """
        write_whole(check_model_path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the content of the model file."""
        header: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "network": _architecture(self.network),
            "acquisition": asdict(self.acquisition),
            "normalisations": [asdict(n) for n in self.normalisations],
            "training": dict(self.training),
            "provenance": dict(self.provenance),
        }
        if self.correction:
            header["correction"] = self.correction
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        if self.error_tail is not None:
            header["error"] = {"intervals": [self.error_tail.intervals[level] for level in LEVELS]}
            weights |= {f"{ERROR}{k}": v.contiguous() for k, v in self.error_tail.tail.state_dict().items()}
        if self.state is not None:
            numbers = {"steps": self.state.steps, "patches": self.state.patches, "seconds": self.state.seconds}
            header["state"] = numbers
            weights |= {f"{STATE}{k}": v.contiguous() for k, v in self.state.tensors.items()}
        header["checksum"] = _checksum(json.loads(json.dumps(header)), self.state, self.error_tail)
        return save(weights, metadata={"cropeq": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model onto the CPU; code in the file is never run.

        Raises
        ------
        WrongTypeError, MissingFileError
            If it is not a path, or there is no such file.
        ModelFileError
            If the file is not a model, is damaged, or has impossible values.
        """
        path = path_of("path", path, CHOOSE)
        if not path.is_file():
            raise MissingFileError(f"{path} is not a file.", CHOOSE, setting="model")
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path.name} is larger than any model (2 GiB).", CHOOSE, setting="model")
        try:
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                header = _parse_header((file.metadata() or {}).get("cropeq"))
                acquisition = _read_acquisition(header["acquisition"])
                normalisations = [_read_normalisation(n) for n in header["normalisations"]]
                network = _read_network(file, header["network"], header.get("fingerprint"))
                state = _read_state(file, header.get("state"), network)
                error_tail = _read_error_tail(file, header.get("error"), network)
            known = header.get("checksum")
            if known is not None and known != _checksum(header, state, error_tail):  # version 0.1.0 wrote none
                raise ValueError("its header or training state differs from what was saved")
            correction = _read_correction(header.get("correction", 0.0))  # version 0.1.0 made none
            about = header["training"], header["provenance"]
            return cls(network, acquisition, normalisations, *about, state, correction, error_tail)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise ModelFileError(
                f"{path.name} is not a readable napari-cropeq model ({_one_line(error)}).", CHOOSE, setting="model"
            ) from error


def check_model_path(path: str | Path) -> Path:
    """Return ``path`` if a model can be written there, or raise ArgumentError or AccessError."""
    path = path_of("path", path, f"Give a name ending in {SUFFIX}.")
    if path.suffix != SUFFIX:
        raise ArgumentError(
            f"The model name {path.name!r} does not end in {SUFFIX}.", "Choose another name.", setting="output"
        )
    if path.is_dir():
        raise AccessError(f"{path} is a folder, not a file.", "Choose another name.", setting="output")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise AccessError(
            f"{path} cannot be written: the folder {path.parent} does not exist or is not writable.",
            "Choose another folder.",
            setting="output",
        )
    return path


def provenance(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of the source (a mapping of JSON values) and of the package versions."""
    from napari_cropeq import __version__

    text = json.dumps(source, sort_keys=True, default=str)
    return {
        "source": dict(source),
        "source_checksum": hashlib.sha256(text.encode()).hexdigest()[:16],
        "versions": {
            "napari-cropeq": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, values in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).data)
    return digest.hexdigest()[:16]


def _checksum(header: Mapping[str, Any], state: State | None, error_tail: ErrorTail | None) -> str:
    """Return a digest of all that a file contains: a header has the fingerprint of the weights."""
    covered = {key: value for key, value in header.items() if key != "checksum"}
    tensors = {} if state is None else dict(state.tensors)
    if error_tail is not None:
        tensors |= {f"{ERROR}{k}": v for k, v in error_tail.tail.state_dict().items()}
    return _digest(json.dumps(covered, sort_keys=True), tensors)


def _architecture(network: Network) -> dict[str, Any]:
    return {
        "kind": network.kind,
        "filters": network.filters,
        "blocks": network.blocks,
        "kernel": network.kernel,
        "subpositions": network.subpositions,
    }


def _parse_header(text: str | None) -> dict[str, Any]:
    if text is None:
        raise ValueError("it has no model header")
    header = json.loads(text)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    for key in ("network", "acquisition", "training", "provenance"):
        if not isinstance(header.get(key), dict):
            raise ValueError(f"its header has no {key}")
    if not isinstance(header.get("normalisations"), list) or not header["normalisations"]:
        raise ValueError("its header has no normalisations")
    check_records(header)
    return header


def _read_network(file: Any, architecture: dict[str, Any], fingerprint: Any) -> Network:
    """Build the network of the header and fill it; shapes and fingerprint are compared before it takes memory."""
    kind = architecture["kind"]
    numbers = [architecture[k] for k in ("filters", "blocks", "kernel", "subpositions")]
    if not isinstance(kind, str) or not all(type(n) is int for n in numbers):
        raise ValueError("its network has values of the wrong type")
    with torch.device("meta"):  # shapes without memory and first weights: a hostile header costs nothing
        network = build_network(kind, *numbers)
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    names = [k for k in file.keys() if not k.startswith((STATE, ERROR))]
    weights = _read_tensors(file, dict(zip(names, names, strict=True)), expected)
    if fingerprint != _digest(json.dumps(_architecture(network)), weights):
        raise ValueError("its weights differ from those that were saved")
    network.load_state_dict(weights, assign=True)
    use_channels_last(network)
    return network.eval().requires_grad_(False)


def _read_state(file: Any, numbers: Any, network: Network) -> State | None:
    """Return the state of the training, or None; every tensor's shape is compared before it is read."""
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    names = [k for k in file.keys() if k.startswith(STATE)]
    if numbers is None and not names:
        return None
    steps, patches, seconds = (numbers[k] for k in ("steps", "patches", "seconds"))
    if type(steps) is not int or type(patches) is not int or min(steps, patches) < 0 or not 0 <= float(seconds) < 1e12:
        raise ValueError("its training state has impossible numbers")
    tensors: dict[str, torch.Tensor] = {}
    for group in STATE_GROUPS:
        prefix = f"{STATE}{group}/"
        own = {k.removeprefix(prefix): k for k in names if k.startswith(prefix)}
        whole = group == "last" or (group == "average" and own)
        # Not every weight has both moments.
        wanted = expected if whole else {k: v for k, v in expected.items() if k in own}
        tensors |= {f"{group}/{k}": v for k, v in _read_tensors(file, own, wanted).items()}
    if len(tensors) != len(names):
        raise ValueError("its training state does not fit its network")
    return State(tensors, steps, patches, float(seconds))


def _read_error_tail(file: Any, record: Any, network: Network) -> ErrorTail | None:
    """Return the tail for the expected error, or None; its shapes are those of the tail of the network."""
    names = {k.removeprefix(ERROR): k for k in file.keys() if k.startswith(ERROR)}
    if record is None and not names:
        return None
    intervals = record["intervals"]
    if not (len(intervals) == len(LEVELS) and all(is_number(v) and 0 < v < 1e6 for v in intervals)):
        raise ValueError("its expected error has impossible intervals")
    expected = {k: tuple(v.shape) for k, v in network.tail.state_dict().items()}
    tensors = _read_tensors(file, names, expected)
    return ErrorTail.of(tensors["weight"], tensors["bias"], dict(zip(LEVELS, map(float, intervals), strict=True)))


def _read_tensors(
    file: Any, keys: Mapping[str, str], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    """Return the tensors under ``keys`` (name to key) if they are finite float32 of the ``expected`` shapes."""
    if {name: tuple(file.get_slice(key).get_shape()) for name, key in keys.items()} != expected:
        raise ValueError("its weights do not fit its network")
    tensors = {
        name: file.get_tensor(keys[name]).clone() for name in expected
    }  # not a view of the file, which may change
    if not all(t.dtype is torch.float32 and bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise ValueError("its weights are not finite 32-bit numbers")
    return tensors


def _read_acquisition(values: dict[str, Any]) -> Acquisition:
    size = values["voxel_size"]
    if not isinstance(size, list) or type(values["axial"]) is not int:
        raise ValueError("its acquisition has values of the wrong type")
    z, y, x = (float(v) for v in size)
    fwhm, lateral = float(values["fwhm"]), float(values["lateral_fwhm"])
    return Acquisition((z, y, x), values["axial"], fwhm, str(values["unit"])[:64], lateral)


def _read_correction(value: Any) -> float:
    if not (is_number(value) and 0 <= value <= WIDEST):
        raise ValueError("its correction is not a width")
    return float(value)


def _read_normalisation(values: dict[str, Any]) -> Normalisation:
    low, high = float(values["low"]), float(values["high"])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("its normalisation is not a range of numbers")
    return Normalisation(low, high)


def _one_line(error: Exception) -> str:
    problem = error.problem if isinstance(error, CropeqError) else str(error)  # a model file has another remedy
    text = problem.strip("'\"").splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".")
