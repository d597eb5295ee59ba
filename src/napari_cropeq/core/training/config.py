"""What decides a training: one field an option, and the presets that fill them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_cropeq.core.network import NETWORKS

__all__ = ["PRESETS", "TrainingConfig"]

BLOCKS = {"subpixel": 7, "valid": 7, "padded": 32}
OPTIMISERS = ("muon", "adamw")
SCHEDULES = ("cosine", "constant")
ROTATIONS = ("right", "any")


def option(default: Any, help: str, **choices: Any) -> Any:
    """Return a field whose help (with its unit) and choices serve the command line and the window."""
    return field(default=default, metadata={"help": help, **choices})


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a training; each field says what it is, with its unit. The defaults are the preset ``fast``.

    Raises
    ------
    ValueError
        If a field is out of range, or not exactly one budget is given.
    """

    minutes: float | None = option(2.0, "time budget, minutes")
    patches: int | None = option(None, "patch budget, instead of a time budget")
    network: str = option("subpixel", "network", choices=tuple(NETWORKS))
    filters: int = option(32, "feature maps between layers")
    blocks: int | None = option(None, "residual blocks; 7, or 32 for the padded network, by default")
    kernel: int = option(3, "side of a convolution kernel, px", choices=(3, 5, 7))
    patch: int = option(64, "side of an input patch, px of the network's input")
    batch: int = option(4, "patches a step")
    optimiser: str = option("muon", "how weights are stepped", choices=OPTIMISERS)
    rate: float = option(1e-3, "peak learning rate (of AdamW; Muon's matrices take ten times that)")
    schedule: str = option("cosine", "how the learning rate goes after its warm-up", choices=SCHEDULES)
    warm_up: int = option(50, "steps until the learning rate is at its peak")
    decay: float = option(0.01, "weight decay of AdamW")
    edge_weight: float = option(1.0, "weight of the Sobel-edge loss beside L1")
    average: float = option(0.0, "share that the running average of the weights keeps each step; 0 for none")
    validation: int = option(24, "patches of the held-out rotation to choose the best weights by")
    epoch: int = option(2_000, "patches between validations; with a time budget at most 10 s pass between them")
    patience: int = option(40, "epochs without an improvement after which training stops; 0 for never")
    improvement: float = option(0.002, "what counts as an improvement, share of the validation loss")
    rotations: str = option("right", "planes are turned by right angles or any angle", choices=ROTATIONS)
    intensity: float = option(0.0, "largest change of contrast, and twice that of brightness, between patches")
    gradient: float = option(0.5, "share of patches drawn where the gradient is high")
    match_noise: bool = option(True, "give LR patches the noise of real axial samples")
    poisson: float = option(0.0, "largest Poisson noise added to LR patches, variance at full intensity")
    uniform: float = option(0.0, "largest uniform noise added to LR patches, share of the intensity range")
    seed: int = option(0, "fixes weights and patches")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainingConfig:
        """Return the recipe called ``fast``, ``paper`` or ``light-sheet``, with some fields set otherwise.

        A budget among the ``overrides`` replaces the preset's.

        Raises
        ------
        ValueError
            If there is no such preset or field.
        """
        if name not in PRESETS:
            raise ValueError(f"Got preset {name!r}, expected one of {', '.join(PRESETS)}: choose one of these.")
        unknown = set(overrides) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            known = ", ".join(f.name for f in dataclasses.fields(cls))
            raise ValueError(f"Got {', '.join(sorted(unknown))}, expected fields of a recipe: choose from {known}.")
        values: dict[str, Any] = dict(PRESETS[name])
        if overrides.get("patches") is not None:
            values["minutes"] = None
        elif overrides.get("minutes") is not None:
            values["patches"] = None
        return cls(**{**values, **overrides})

    @classmethod
    def read(cls, values: Any) -> TrainingConfig:
        """Return the recipe that a model file tells of; what it does not tell is as by default.

        Raises
        ------
        ValueError
            If it is no mapping of a recipe's fields, each of the right type and range.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= set(kinds):
            raise ValueError("Got a model that does not tell its recipe, expected one: train anew.")
        for name, value in values.items():
            if not any(fits(value, kind.strip()) for kind in str(kinds[name]).split("|")):
                raise ValueError(f"Got a model whose recipe has {name} {value!r}, expected {kinds[name]}: train anew.")
        return cls(**values)

    @classmethod
    def parse(cls, words: Iterable[str]) -> dict[str, Any]:
        """Return ``NAME=VALUE`` words as values of a recipe's fields, each in the type of its field.

        Raises
        ------
        ValueError
            If a word is none, or the value is none of that field.
        """
        kinds = {f.name: str(f.type).split(" ")[0] for f in dataclasses.fields(cls)}
        settings: dict[str, Any] = {}
        for word in words:
            name, found, text = word.partition("=")
            name = name.replace("-", "_")
            if not found or name not in kinds:
                raise ValueError(
                    f"Got setting {word!r}, expected NAME=VALUE with a name among {', '.join(kinds)}: "
                    "write, for instance, filters=64."
                )
            settings[name] = _parse(name, text, kinds[name])
        return settings

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.patches is None):
            raise ValueError("Got both or neither of minutes and patches, expected one budget: give one of them.")
        budget, name = (self.minutes, "minutes") if self.patches is None else (self.patches, "patches")
        if budget is None or not (math.isfinite(budget) and budget > 0):
            raise ValueError(f"Got {budget} {name}, expected a positive number: give a larger training budget.")
        if self.batch < 1 or self.patch < 33 or not self.rate > 0:
            raise ValueError("Got a batch below 1, a patch below 33 px or a rate of 0: choose larger ones.")
        if self.validation < 1 or self.seed < 0 or not 0 <= self.edge_weight < math.inf:
            raise ValueError(
                f"Got {self.validation} validation patches, seed {self.seed} and edge weight {self.edge_weight:g}, "
                "expected at least 1, 0 and 0: choose larger ones."
            )
        if self.epoch < 1 or self.patience < 0 or self.warm_up < 1:
            raise ValueError(
                f"Got epochs of {self.epoch} patches, a patience of {self.patience} and {self.warm_up} warm-up steps, "
                "expected at least 1, 0 and 1: choose larger ones."
            )
        for name, limit in (
            ("average", 1.0),
            ("intensity", 1.0),
            ("gradient", 1.0),
            ("poisson", 1.0),
            ("uniform", 1.0),
            ("decay", 1.0),
        ):
            share = getattr(self, name)
            if not 0 <= share <= limit or (name == "average" and share == 1):
                raise ValueError(f"Got {name} {share:g}, expected a share from 0 to 1: correct it.")
        if not 0 <= self.improvement < 1:
            raise ValueError(f"Got improvement {self.improvement:g}, expected a share from 0 to 1: correct it.")
        for item in dataclasses.fields(self):
            choices, value = item.metadata.get("choices"), getattr(self, item.name)
            if choices and item.name != "network" and value not in choices:  # networks are checked where they are built
                known = ", ".join(map(str, choices))
                raise ValueError(f"Got {item.name} {value!r}, expected one of {known}: choose one of these.")

    @property
    def depth(self) -> int:
        """Residual blocks, the network's own number where none is given."""
        return self.blocks if self.blocks is not None else BLOCKS.get(self.network, 7)


def fits(value: Any, kind: str) -> bool:
    """Return whether a JSON value is of the ``kind`` of a field; a whole number is a float as well."""
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    return value is None if kind == "None" else type(value) in kinds[kind]


def _parse(name: str, text: str, kind: str) -> Any:
    known: dict[str, Any] = {"true": True, "false": False} if kind == "bool" else {}
    expected = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    try:
        return known[text.lower()] if kind == "bool" else {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError):
        raise ValueError(f"Got setting {name} of {text!r}, expected {expected[kind]}: correct it.") from None


PAPER: dict[str, Any] = {
    "minutes": None,
    "patches": 320_000,
    "network": "valid",
    "filters": 256,  # not in the paper's text: the count that its times fit best
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
}

PRESETS: Mapping[str, dict[str, Any]] = {
    "fast": {},
    "paper": PAPER,
    "light-sheet": PAPER | {"patches": 500_000, "gradient": 1.0, "poisson": 0.01, "uniform": 0.02},
}
"""Fields that differ from the defaults; docs/training.md gives the reasons."""
