"""The settings of a training: one field for each, and the presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from napari_cropeq.core.imaging.back_projection import WIDEST
from napari_cropeq.core.network import NETWORKS
from napari_cropeq.errors import ArgumentError, ModelFileError

__all__ = ["EARLIER", "PRESETS", "TrainingConfig"]

BLOCKS = {"subpixel": 7, "valid": 7, "padded": 32}
OPTIMISERS = ("muon", "adamw")
LOSSES = ("charbonnier", "l1")
SCHEDULES = ("cosine", "constant")
ROTATIONS = ("right", "any")
LEAST = {"batch": 1, "patch": 33, "validation": 1, "seed": 0, "epoch": 1, "patience": 0, "warm_up": 1}
SHARES = ("average", "intensity", "gradient", "poisson", "uniform", "decay", "improvement")
BELOW_ONE = ("average", "improvement")


def option(default: Any, help: str, unit: str = "", **choices: Any) -> Any:
    """Return a field with the help, the unit, if it is no pure number, and choices for command line and window."""
    return field(default=default, metadata={"help": help, "unit": unit, **choices})


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training; the help of each field has its unit. The defaults are the preset ``fast``.

    Raises
    ------
    ArgumentError
        If a field is out of range, or not exactly one budget is given.
    """

    minutes: float | None = option(2.0, "time budget, minutes", "min")
    patches: int | None = option(None, "patch budget, instead of a time budget", "patches")
    network: str = option("subpixel", "network", choices=tuple(NETWORKS))
    filters: int = option(32, "feature maps between layers", "maps")
    blocks: int | None = option(None, "residual blocks; 7, or 32 for the padded network, by default")
    kernel: int = option(3, "side of a convolution kernel, px", "px", choices=(3, 5, 7))
    patch: int = option(64, "side of an input patch, px of the network's input", "px")
    batch: int = option(4, "patches in each step", "patches")
    optimiser: str = option("muon", "optimiser of the weights", choices=OPTIMISERS)
    rate: float = option(1e-3, "peak learning rate (of AdamW; ten times as much for Muon's matrices)")
    schedule: str = option("cosine", "learning rate after the warm-up", choices=SCHEDULES)
    warm_up: int = option(50, "steps until the learning rate reaches its peak", "steps")
    decay: float = option(0.01, "weight decay of AdamW")
    loss: str = option("charbonnier", "loss of intensities and edges", choices=LOSSES)
    edge_weight: float = option(1.0, "weight of the loss of Sobel edges relative to that of intensities")
    average: float = option(0.0, "share of the running average of the weights that each step keeps; 0 for no average")
    validation: int = option(24, "patches of the held-out rotation that select the best weights", "patches")
    epoch: int = option(2_000, "patches between validations; with a time budget, at most 10 s", "patches")
    patience: int = option(40, "epochs without an improvement after which training stops; 0 for never", "epochs")
    improvement: float = option(0.002, "smallest improvement that counts, share of the validation loss")
    rotations: str = option("right", "planes are rotated by right angles or by any angle", choices=ROTATIONS)
    intensity: float = option(0.0, "largest change of contrast, and twice that of brightness, between patches")
    gradient: float = option(0.5, "share of patches drawn where the gradient is high")
    match_noise: bool = option(True, "give LR patches the noise of real axial samples")
    share_noise: bool = option(True, "share photons between LR patch and target, whose noise is then independent")
    correction: float = option(2.0, "width of the filter that keeps local mean intensities, px; 0 for none", "px")
    poisson: float = option(0.0, "largest Poisson noise added to LR patches, variance at full intensity")
    uniform: float = option(0.0, "largest uniform noise added to LR patches, share of the intensity range")
    seed: int = option(0, "seed of weights and patches")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainingConfig:
        """Return the preset ``fast``, ``paper`` or ``light-sheet``, with ``overrides`` for some fields.

        A budget among the ``overrides`` replaces that of the preset.

        Raises
        ------
        ArgumentError
            If there is no such preset or field.
        """
        if name not in PRESETS:
            raise ArgumentError(
                f"There is no preset {name!r}.", f"Choose one of {', '.join(PRESETS)}.", setting="preset"
            )
        unknown = set(overrides) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            known = ", ".join(f.name for f in dataclasses.fields(cls))
            raise ArgumentError(f"There is no setting {', '.join(sorted(unknown))}.", f"Choose from {known}.")
        values: dict[str, Any] = dict(PRESETS[name])
        if overrides.get("patches") is not None:
            values["minutes"] = None
        elif overrides.get("minutes") is not None:
            values["patches"] = None
        return cls(**{**values, **overrides})

    @classmethod
    def read(cls, values: Any) -> TrainingConfig:
        """Return the settings in a model file; those that it lacks are as in the version that saved it.

        Raises
        ------
        ModelFileError
            If ``values`` is not a mapping of settings, each of the right type and range.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= set(kinds):
            raise ModelFileError("The model file has no training settings.", "Train again.")
        for name, value in values.items():
            if not any(fits(value, kind.strip()) for kind in str(kinds[name]).split("|")):
                raise ModelFileError(
                    f"The training settings in the model file are damaged: {name} is {value!r}, not {kinds[name]}.",
                    "Train again.",
                )
        try:
            return cls(**{**EARLIER, **values})
        except ArgumentError as error:
            raise ModelFileError(
                f"The training settings in the model file are damaged: {error.problem}", "Train again."
            ) from error

    @classmethod
    def parse(cls, words: Iterable[str]) -> dict[str, Any]:
        """Return the settings in ``NAME=VALUE`` words, each converted to the type of its field.

        Raises
        ------
        ArgumentError
            If a word is not of this form, or the value does not fit the field.
        """
        kinds = {f.name: str(f.type).split(" ")[0] for f in dataclasses.fields(cls)}
        settings: dict[str, Any] = {}
        for word in words:
            name, found, text = word.partition("=")
            name = name.replace("-", "_")
            if name not in kinds:
                raise ArgumentError(f"There is no setting {name!r}.", f"Choose from {', '.join(kinds)}.")
            if not found:
                raise ArgumentError(f"The setting {name} has no value.", "Write, for instance, filters=64.")
            settings[name] = _parse(name, text, kinds[name])
        return settings

    def resuming(self, recipe: Mapping[str, Any]) -> TrainingConfig:
        """Return these settings to complete a training; those that its ``recipe`` lacks are as they were then."""
        return dataclasses.replace(self, **{name: was for name, was in EARLIER.items() if name not in recipe})

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.patches is None):
            raise ArgumentError(
                "Minutes and patches are both given."
                if self.patches is not None
                else "Neither minutes nor patches are given.",
                "Give one of them.",
                setting="minutes",
            )
        budget, name = (self.minutes, "minutes") if self.patches is None else (self.patches, "patches")
        if budget is None or not (math.isfinite(budget) and budget > 0):
            raise ArgumentError(
                f"The training budget ({budget} {name}) is not a positive number.",
                "Choose a positive one.",
                setting=name,
            )
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ArgumentError(
                    f"The setting {name} is {getattr(self, name)}, less than {least}.",
                    f"Choose {least} or more.",
                    setting=name,
                )
        if not self.rate > 0:
            raise ArgumentError(
                f"The setting rate is {self.rate:g}, not above 0.", "Choose a positive one.", setting="rate"
            )
        for name in ("edge_weight", "correction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ArgumentError(
                    f"The setting {name} is {getattr(self, name):g}, not a number of 0 or more.",
                    "Choose 0 or more.",
                    setting=name,
                )
        if self.correction > WIDEST:
            raise ArgumentError(
                f"The setting correction is {self.correction:g}, more than {WIDEST:g}.",
                f"Choose {WIDEST:g} or less.",
                setting="correction",
            )
        for name in SHARES:
            share, below_one = getattr(self, name), name in BELOW_ONE
            if not 0 <= share <= 1 or (below_one and share == 1):
                most = "less than 1" if below_one else "1"
                raise ArgumentError(
                    f"The setting {name} is {share:g}, not a share from 0 to {most}.",
                    "Choose one in this range.",
                    setting=name,
                )
        for item in dataclasses.fields(self):
            choices, value = item.metadata.get("choices"), getattr(self, item.name)
            if choices and item.name != "network" and value not in choices:  # build_network checks the network
                known = ", ".join(map(str, choices))
                raise ArgumentError(
                    f"The setting {item.name} is {value!r}, not one of {known}.",
                    "Choose one of these.",
                    setting=item.name,
                )

    @property
    def preset_name(self) -> str:
        """The preset that has these settings, apart from the budget; ``custom`` if there is none."""
        for name in PRESETS:
            if replace(self, minutes=None, patches=1) == TrainingConfig.preset(name, patches=1):
                return name
        return "custom"

    @property
    def depth(self) -> int:
        """Residual blocks; the default of the network if ``blocks`` is None."""
        return self.blocks if self.blocks is not None else BLOCKS.get(self.network, 7)


def fits(value: Any, kind: str) -> bool:
    """Return whether a JSON value is of the ``kind`` of a field; an integer is also a float."""
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    return value is None if kind == "None" else type(value) in kinds[kind]


def _parse(name: str, text: str, kind: str) -> Any:
    known: dict[str, Any] = {"true": True, "false": False} if kind == "bool" else {}
    expected = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    try:
        return known[text.lower()] if kind == "bool" else {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError):
        raise ArgumentError(
            f"The setting {name} is {text!r}, not {expected[kind]}.", f"Give {expected[kind]}.", setting=name
        ) from None


EARLIER: dict[str, Any] = {"share_noise": False, "correction": 0.0, "loss": "l1"}
"""What version 0.1.0 did, whose models do not name these settings."""

PAPER: dict[str, Any] = {
    "minutes": None,
    "patches": 320_000,
    "network": "valid",
    "filters": 256,  # not in the paper's text: the number that fits its times best
    "patch": 64,
    "batch": 32,
    "optimiser": "adamw",
    "rate": 1e-4,
    "schedule": "constant",
    "warm_up": 1,
    "average": 0.0,
    "validation": 640,
    "epoch": 6_400,
    "patience": 10,
    "improvement": 1e-2,
    "rotations": "any",
    "intensity": 0.2,
    "gradient": 0.0,
    "match_noise": False,
    "share_noise": False,
    "correction": 0.0,
    "loss": "l1",
}

PRESETS: Mapping[str, dict[str, Any]] = {
    "fast": {},
    "paper": PAPER,
    "light-sheet": PAPER | {"patches": 500_000, "gradient": 1.0, "poisson": 0.01, "uniform": 0.02},
}
"""Settings that differ from the defaults; the page Train of the documentation has the reasons."""
