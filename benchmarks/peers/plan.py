"""Which method is trained on which volume for how long, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stacks import VOLUMES

TRAINED = ("ours", "ECLARE", "CARE", "padded")
MORE = {"interpolation": 0.3, "Richardson-Lucy": 1.5, "ours": 1.0, "padded": 2.0, "CARE": 1.5, "ECLARE": 7.0}
"""Minutes of a method besides its training, about."""

MRI, PHANTOM = "MRI x4", "phantom x2.433"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """A method on a volume; for a network, minutes of training and seed."""

    volume: str
    method: str
    minutes: float = 0
    seed: int = 0

    @property
    def name(self) -> str:
        """Short, for file names."""
        trained = f"-{self.minutes:g}min-{self.seed}" if self.minutes else ""
        return f"{self.volume}-{self.method}{trained}".replace(", ", "-").replace(" ", "-").lower()

    @property
    def estimate(self) -> float:
        """How long it takes, minutes."""
        return self.minutes + MORE[self.method]


def plan() -> list[Cell]:
    """Return all cells, the most important ones first."""
    return list(dict.fromkeys(_cells()))


def _cells() -> Iterator[Cell]:
    for volume in VOLUMES:
        yield Cell(volume, "interpolation")
        yield Cell(volume, "Richardson-Lucy")
    yield from (Cell(volume, method, 3) for volume in VOLUMES for method in TRAINED)
    yield from (Cell(MRI, method, 3, seed) for seed in SEEDS for method in TRAINED)
    yield from (Cell(MRI, method, 60) for method in TRAINED if method != "padded")
    yield from (Cell(volume, method, 15) for volume in (MRI, PHANTOM) for method in TRAINED)
    yield from (Cell(PHANTOM, method, 3, seed) for seed in SEEDS for method in TRAINED if method != "ECLARE")
