"""The settings of a training as widgets, made from the fields of the training config."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QWidget

from napari_cropeq.core.training.config import PRESETS, TrainingConfig
from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.hints import in_words
from napari_cropeq.gui.last_used import last_used, remember
from napari_cropeq.gui.sections.section import Section

__all__ = ["TrainingConfigForm"]

BUDGETS = {"minutes": 2.0, "patches": 10_000}
"""The units of a budget, and the amount that is offered if the preset uses the other unit."""


class TrainingConfigForm(Section):
    """All fields of a :class:`TrainingConfig`, folded; a preset fills them, and changed fields are highlighted.

    The owner places :attr:`preset` and :attr:`spending` (number and unit of the budget) where they are always visible.

    Parameters
    ----------
    colours : Colours
        For the theme of the window.
    """

    def __init__(self, colours: Colours) -> None:
        super().__init__("Advanced options", "Show or hide all settings of the training")
        self._colours = colours
        tooltip = "Fills the advanced options. fast: quick on a CPU; paper: as published; light-sheet: for fluorescence"
        self.preset = ComboBox(label="Preset", choices=list(PRESETS), tooltip=tooltip)
        self.budget = FloatSpinBox(min=0.0, max=1e9, tooltip="Training stops after this budget, or when it converges")
        self.unit = ComboBox(choices=list(BUDGETS), tooltip="Unit of the budget: minutes, or number of patches")
        self.spending = Container(widgets=[self.budget, self.unit], layout="horizontal", labels=False, label="Budget")
        self.spending.margins = (0, 0, 0, 0)
        options = [field for field in dataclasses.fields(TrainingConfig) if field.name not in BUDGETS]
        self.fields = {option.name: _widget(option) for option in options}
        self._labels = {option.name: QLabel(_label(option)) for option in options}
        body = QWidget()
        rows = QFormLayout(body)
        for name, field in self.fields.items():
            self._labels[name].setBuddy(field.native)
            rows.addRow(self._labels[name], field.native)
        self.restore = QPushButton("Back to the preset")
        self.restore.setToolTip("Undo all changes of the preset's settings")
        rows.addRow(self.restore)
        self.addWidget(body)

        self.preset.changed.connect(self._fill)
        self.unit.changed.connect(self._show_budget)
        self.restore.clicked.connect(lambda: self._fill())
        for field in self.fields.values():
            field.changed.connect(self._mark)
        self._fill()

    def config(self) -> TrainingConfig:
        """Return the config that the form shows.

        Raises
        ------
        ValueError
            If a field is out of range.
        """
        budget = self.budget.value if self.unit.value == "minutes" else round(self.budget.value)
        return TrainingConfig.preset(self.preset.value, **{self.unit.value: budget}, **self.overrides())

    def remember(self) -> None:
        """Remember preset and budget for the next session."""
        remember(preset=self.preset.value, budget=[self.budget.value, self.unit.value])

    def recall(self) -> None:
        """Show the preset and the budget that were used last, if there are any."""
        used = last_used()
        if used.get("preset") in self.preset.choices:
            self.preset.value = used["preset"]
        match used.get("budget"):
            case [int() | float() as amount, str() as unit] if unit in BUDGETS and 0 < amount < self.budget.max:
                self.set_budget(**{unit: amount})

    def overrides(self) -> dict[str, Any]:
        """Return the fields that differ from the preset, except for the budget."""
        return {name: value for name, value in self._values().items() if not _same(value, self._of_preset(name))}

    def show_config(self, config: TrainingConfig, budget: bool = True) -> None:
        """Fill the form with a config, and optionally its budget; highlight fields that differ from the preset."""
        for name, field in self.fields.items():
            value = getattr(config, name)
            field.value = 0 if value is None else value
        unit = "minutes" if config.patches is None else "patches"
        if budget:
            self.set_budget(**{unit: getattr(config, unit)})

    def set_budget(self, **budget: float) -> None:
        """Set the budget: ``minutes=`` or ``patches=``."""
        [(self.unit.value, amount)] = budget.items()
        self.budget.value = amount

    def _of_preset(self, name: str) -> Any:
        return getattr(TrainingConfig.preset(self.preset.value), name)

    def _values(self) -> dict[str, Any]:
        return {n: None if n == "blocks" and not w.value else w.value for n, w in self.fields.items()}

    def _fill(self, _: Any = None) -> None:
        self.show_config(TrainingConfig.preset(self.preset.value))
        self._mark()

    def _show_budget(self, unit: str) -> None:
        """Show the preset's budget if its unit is ``unit``, else a typical one."""
        of_preset = self._of_preset(unit)
        self.budget.native.setDecimals(2 if unit == "minutes" else 0)
        self.budget.step = 0.5 if unit == "minutes" else 1000
        self.budget.value = BUDGETS[unit] if of_preset is None else of_preset

    def recolour(self, colours: Colours) -> None:
        """Highlight changed fields in another colour."""
        self._colours = colours
        self._mark()

    def _mark(self, _: Any = None) -> None:
        changed, highlight = self.overrides(), f"font-weight: bold; color: {self._colours.changed}"
        for name, label in self._labels.items():
            of_preset = self._of_preset(name)
            label.setStyleSheet(highlight if name in changed else "")
            label.setToolTip(f"{self.fields[name].tooltip} ({self.preset.value}: {of_preset or 0})")
        self.restore.setEnabled(bool(changed))
        self.setText(f"Advanced options ({len(changed)} changed)" if changed else "Advanced options")


def _label(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field with its unit, if it has one."""
    unit = field.metadata["unit"]
    return f"{in_words(field.name)} ({unit})" if unit else in_words(field.name)


def _widget(field: dataclasses.Field[Any]) -> ValueWidget:
    """Return a widget for a field of the config, from its type, its choices and its help."""
    kind = typing.get_type_hints(TrainingConfig)[field.name]
    optional = type(None) in typing.get_args(kind)
    kind = next((k for k in typing.get_args(kind) if k is not type(None)), kind)
    tooltip = field.metadata["help"] + (" (0)" if optional else "")
    common = {"name": field.name, "tooltip": tooltip[:1].upper() + tooltip[1:]}
    if "choices" in field.metadata:
        return ComboBox(choices=list(field.metadata["choices"]), value=field.default, **common)
    if kind is bool:
        return CheckBox(value=field.default, text="", **common)
    if kind is int:
        return SpinBox(value=field.default or 0, min=0, max=10**9, **common)
    box = FloatSpinBox(value=0.0, min=0.0, max=1e6, **common)
    known = [field.default, *(p[field.name] for p in PRESETS.values() if field.name in p)]
    # Two more digits than the smallest value of the presets needs.
    box.native.setDecimals(2 + max(0, *(-math.floor(math.log10(v)) if v else 0 for v in known)))
    box.value = field.default
    return box


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and other is not None:
        return math.isclose(value, other, rel_tol=1e-9)
    return bool(value == other)
