"""The budget of a training: its progress, when it validates, and when it ends."""

from __future__ import annotations

import math
import time

from napari_cropeq.core.model import State
from napari_cropeq.core.training.config import TrainingConfig

__all__ = ["Budget"]

CHECK_SECONDS = 10.0
"""Longest time between two validations of a training with a time budget, unless they would take too much of it."""

VALIDATION_SHARE = 0.1  # of a time budget, at most


class Budget:
    """Patches and seconds that a training uses.

    With a patch budget, everything that affects the bits of the result depends on patches, never on seconds.

    Parameters
    ----------
    config : TrainingConfig
        The budget in patches or minutes, the length of an epoch, and the patience.
    state : State, optional
        State of an earlier training.
    resume : bool
        Whether the patches and seconds of the earlier training count.

    Attributes
    ----------
    patches, seconds : int, float
        Used in total, with those of an earlier training.
    fraction : float
        Part of the budget that is used, 0 to 1; 1 also when the loss does not improve any more.
    steps : int
        Steps since :meth:`start`.
    """

    def __init__(self, config: TrainingConfig, state: State | None, resume: bool) -> None:
        self._config, self._resume = config, resume
        self.patches, self.seconds = (0, 0.0) if state is None else (state.patches, state.seconds)
        self._wanted_loss, self.validations_waited = math.inf, 0
        self._validation_seconds, self._last_validation = 0.0, 0.0
        self.start()

    def start(self) -> None:
        """Start the clock. The budget counts from here, unless an interrupted training is resumed."""
        self._first = (0, 0.0) if self._resume else (self.patches, self.seconds)
        self._validated = (self.patches, self.seconds)
        self._patches_before = self.patches
        self._seconds_before, self._clock = self.seconds, time.monotonic() - self.seconds
        self.fraction, self.steps = 0.0, 0
        self._validation_seconds = 0.0

    def spend(self, patches: int) -> None:
        """Count a step with this many patches."""
        self.steps += 1
        self.patches += patches
        self.seconds = time.monotonic() - self._clock
        config = self._config
        whole = config.patches if config.patches else 60 * (config.minutes or 1)
        spent = self.patches - self._first[0] if config.patches else self.seconds - self._first[1]
        self.fraction = min(1.0, spent / whole)

    @property
    def rate(self) -> float:
        """Patches per second since :meth:`start`."""
        return (self.patches - self._patches_before) / max(self.seconds - self._seconds_before, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Estimated time to the end."""
        return (self.seconds - self._first[1]) * (1 / self.fraction - 1) if self.fraction > 0 else math.inf

    @property
    def is_validation_due(self) -> bool:
        """Whether it is time to validate: after an epoch, about 20 times in all, and at the end.

        With a time budget, validations take at most a tenth of it.
        """
        patches, seconds = self.patches - self._validated[0], self.seconds - self._validated[1]
        if self.fraction == 1:
            return True
        if self._config.patches:
            return patches >= min(self._config.epoch, self._config.patches / 20)
        used = self.seconds - self._first[1]
        if self._validation_seconds + self._last_validation > VALIDATION_SHARE * used:
            return False
        return seconds >= min(CHECK_SECONDS, used / max(self.fraction, 1e-9) / 20)

    def validated(self, seconds: float) -> None:
        """Count the time of a validation."""
        self._validation_seconds += seconds
        self._last_validation = seconds

    def converges(self, loss: float) -> bool:
        """Count a validation; return whether the training ends because the loss does not improve any more."""
        self._validated = (self.patches, self.seconds)
        if loss < self._wanted_loss:
            self._wanted_loss, self.validations_waited = loss * (1 - self._config.improvement), 0
        else:
            self.validations_waited += 1
        patience = self._config.patience
        if not patience or self.validations_waited < patience or self.fraction == 1:
            return False
        self.fraction = 1.0
        return True
