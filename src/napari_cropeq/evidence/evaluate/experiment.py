"""One experiment: a method at a factor on one truth, and everything that its scores depend on."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cropeq.core.devices.device import choose_device
from napari_cropeq.core.geometry import AXIS_NAMES, MIN_SLICES, Acquisition, IntTriple, sr_length
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.core.predict import plane_axes
from napari_cropeq.core.training.config import EARLIER, TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.evaluate.score import BORDER, check_range, inside
from napari_cropeq.evidence.evaluate.truth import Truth, acquisition_for
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS
from napari_cropeq.evidence.records import Record

__all__ = ["FIXED", "Experiment", "check_method", "methods"]

FAST = "fast"
"""Method with the default settings, including the default network."""

FIXED = ("minutes", "patches", "network", "seed")
"""Training settings that are fields of the experiment itself."""


def methods() -> tuple[str, ...]:
    """Return the names of all methods: interpolations, ``fast`` for the default settings, and networks."""
    return (*INTERPOLATIONS, FAST, *NETWORKS)


def check_method(name: str) -> None:
    """Raise ArgumentError if there is no method of that name."""
    if name not in methods():
        raise ArgumentError(f"There is no method {name!r}.", f"Choose one of {', '.join(methods())}.", setting="method")


@dataclass(frozen=True)
class Experiment:
    """One experiment; each field is part of its key unless noted otherwise.

    Parameters
    ----------
    truth : Truth
        In the key by its name and checksum.
    factor : float
        Step between slices, truth voxels.
    method : str
        One of :func:`methods`.
    minutes, patches : float, int, optional
        Training budget: one of the two; neither for an interpolation.
    fwhm : float, optional
        Width of the slice profile, truth voxels; the factor by default.
    axis : int
        Index into z, y, x of the axis to degrade.
    overrides : mapping
        Other fields of :class:`napari_cropeq.core.training.config.TrainingConfig`.
    seed : int
        Seed of the training.
    border : int
        Voxels left out of the scores on every side; ``rim`` in the key.
    planes : str, optional
        See :class:`napari_cropeq.core.predict.Predictor`.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``.
    """

    truth: Truth
    factor: float
    method: str
    minutes: float | None = None
    patches: int | None = None
    fwhm: float | None = None
    axis: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    border: int = BORDER
    planes: str | None = None
    device: str = "auto"

    @property
    def trained(self) -> bool:
        """Whether the method is a network."""
        return self.method not in INTERPOLATIONS

    @property
    def config(self) -> TrainingConfig:
        """The training settings.

        Raises
        ------
        ArgumentError
            If an override is not a setting that can be overridden, or has an unusable value.
        """
        known = [name for name in TrainingConfig.__dataclass_fields__ if name not in FIXED]
        for name in self.overrides:
            if name not in known:
                raise ArgumentError(
                    f"The setting {name!r} cannot be overridden.",
                    f"Choose one of {', '.join(known)}.",
                    setting="overrides",
                )
        minutes = None if self.minutes is None else float(self.minutes)
        values = dict(self.overrides) | {"minutes": minutes, "patches": self.patches, "seed": self.seed}
        if self.method != FAST:
            values["network"] = self.method
        return TrainingConfig(**values)

    @property
    def key(self) -> Record:
        """Everything that the scores depend on, in values that JSON can hold."""
        fwhm = self.factor if self.fwhm is None else self.fwhm
        shared = {
            "truth": self.truth.name,
            "checksum": self.truth.checksum,
            "factor": float(self.factor),
            "fwhm": float(fwhm),
            "axis": AXIS_NAMES[self.axis],
            "rim": self.border,
            "method": self.method,
        }
        if not self.trained:
            return shared
        config = asdict(self.config)
        # Version 0.1.0 had no such settings: an experiment as it did them has the key that it had.
        earlier = [name for name, was in EARLIER.items() if config[name] == was]
        groups = (config, self.overrides)
        recipe, overrides = ({name: v for name, v in group.items() if name not in earlier} for group in groups)
        return shared | {
            "minutes": config["minutes"],
            "patches": config["patches"],
            "overrides": overrides,
            "seed": self.seed,
            "planes": "".join(AXIS_NAMES[a] for a in plane_axes(self.planes, self.axis)),
            "device": choose_device(self.device).type,
            "recipe": recipe,
        }

    @property
    def budget(self) -> str:
        """The training budget as text, empty for an interpolation."""
        if not self.trained:
            return ""
        return f"{self.minutes:g} min" if self.minutes is not None else f"{self.patches} patches"

    @property
    def name(self) -> str:
        """File name without suffix; unique for each key."""
        digest = sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:8]
        words = (self.truth.name, f"x{self.factor:g}", self.method, self.budget.replace(" ", ""), digest)
        return re.sub(r"[^\w.+-]+", "-", "_".join(word for word in words if word))

    @property
    def compared(self) -> NDArray[Any]:
        """The part of the truth that the SR grid covers (z, y, x): not all of it if the factor does not divide it.

        Raises
        ------
        ArgumentError
            If the truth cannot be degraded this way.
        """
        acquisition, slices = acquisition_for(self.truth.shape, self.axis, self.factor, self.fwhm)
        length = sr_length(slices, acquisition.factor)
        return self.truth.voxels[tuple(slice(length if a == self.axis else None) for a in range(3))]

    def check(self) -> None:
        """Raise ArgumentError or ImageError if the experiment cannot be computed, before the truth is degraded."""
        check_method(self.method)
        acquisition, _ = acquisition_for(self.truth.shape, self.axis, self.factor, self.fwhm)
        check_range(self.compared[inside(self.compared.shape, self.border)], self.border)
        if self.trained:
            plane_axes(self.planes, self.axis)
            _try_training(self.config, acquisition, self.truth.shape, self.device)


@functools.lru_cache(maxsize=256)
def _try_training(config: TrainingConfig, acquisition: Acquisition, shape: IntTriple, device: str) -> None:
    """Train on one patch of noise as wide as the truth, so that unusable settings raise now."""
    small = replace(config, minutes=None, patches=1, batch=1, validation=1)
    thin = [MIN_SLICES if a == acquisition.axial else n for a, n in enumerate(shape)]
    noise = np.random.default_rng(0).random(thin, np.float32)
    for _ in Training(noise, acquisition, small, device).run():
        pass
