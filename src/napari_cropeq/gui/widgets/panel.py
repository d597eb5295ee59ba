"""The base class of the steps in the dock widget: fields, buttons, a progress bar and a message that stay in sight."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from magicgui.widgets import PushButton
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QSizePolicy, QVBoxLayout, QWidget
from superqt.utils import QSignalDebouncer, QSignalThrottler

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.hints import HINTS
from napari_cropeq.gui.jobs import Job, sentence
from napari_cropeq.gui.parts.column import LEAST, Column
from napari_cropeq.gui.parts.form import Form
from napari_cropeq.gui.parts.keyboard import with_mnemonic
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.session import Session

__all__ = ["Panel"]


class Panel(QWidget):
    """A step of the work on a layer.

    Fields are above the buttons, the bar and the message, which never scroll; what can be folded is below them.

    Parameters
    ----------
    session : Session
        Of the viewer.
    layer : LayerChoice
        The layer that all steps work on.
    """

    hints: ClassVar[Mapping[str, str]] = HINTS  # what to do about an error, in terms of this widget

    def __init__(self, session: Session, layer: LayerChoice) -> None:
        super().__init__()
        self.session, self.viewer, self.layer = session, session.viewer, layer
        self.colours = Colours.of(self.viewer.theme)
        self.coloured: list[Any] = []  # parts with a method recolour
        self.viewer.events.theme.connect(self.recolour)
        self.message = QLabel("")
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.form = Form()
        self.above, self.below = Column(), Column()
        self.above.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.below.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)  # gets the room that is left
        self.fixed = QVBoxLayout()
        self.fixed.setContentsMargins(9, 0, 9, 0)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.above)
        outer.addLayout(self.fixed)
        outer.addWidget(self.below, 1)
        self.above.rows.addWidget(self.form)
        self.layer.changed.connect(self._forget_complaint)
        self.jobs = self.session.enter()
        self.left = False  # whether its dock has been closed
        session, jobs = self.session, self.jobs

        def leave() -> None:  # not a method, because it is called after the widget is deleted
            for job in jobs:
                with contextlib.suppress(RuntimeError):  # at exit the job may be deleted as well
                    job.blockSignals(True)
            session.leave(jobs)

        self._at_destruction = self.destroyed.connect(leave)

    def add_buttons(self, tooltips: Mapping[str, str], /, **actions: Callable[[], None]) -> dict[str, PushButton]:
        """Add a row of buttons named like the keywords; their errors are shown in the message."""
        row, buttons = QHBoxLayout(), {}
        for name, action in actions.items():
            text = with_mnemonic(name.replace("_", " ").capitalize())
            button = PushButton(text=text, tooltip=tooltips[name])
            button.clicked.connect(lambda _=None, action=action: self.pressed(action))
            row.addWidget(button.native)
            buttons[name] = button
        self.fixed.addLayout(row)
        return buttons

    def add_status(self) -> None:
        """Add progress bar and message; call this after all numbers and choices were added."""
        self.fixed.addWidget(self.bar)
        self.fixed.addWidget(self.message)
        for column in (self.above, self.below):
            column.guard_fields()
        if self.below.rows.count():
            self.below.setMinimumHeight(LEAST)

    def run(
        self,
        steps: Callable[[], Iterator[Any]],
        progressed: Callable[[Any], None],
        ended: Callable[[], None],
        interrupt: Callable[[], None] | None = None,
    ) -> Job:
        """Run work in the background, which is stopped with this widget; an error is shown in the message.

        ``interrupt`` shortens a long step of the work when it is stopped.
        """

        def deliver(value: Any) -> None:
            if not isalive(self.message):  # the window is closed, and the work is about to end
                return
            try:
                progressed(value)
            except Exception as error:  # noqa: BLE001 (every error is shown to the user)
                self.complain(sentence(error, self.hints))

        job = Job(steps, interrupt, self.hints)
        job.progressed.connect(deliver)
        job.failed.connect(self.complain)
        job.ended.connect(ended)
        self.jobs[:] = [*(j for j in self.jobs if j.running), job]
        job.start()
        return job

    def pressed(self, action: Callable[[], None]) -> None:
        """Run the ``action`` of a button; a number that is being typed is accepted first."""
        self.commit_typed()
        self.attempt(action)

    def commit_typed(self) -> None:
        """Accept the number that is being typed."""
        for column in (self.above, self.below):
            column.commit_typed()

    def attempt(self, action: Callable[[], None]) -> None:
        """Run ``action``; an error is shown in the message."""
        self.say("")
        try:
            action()
        except Exception as error:  # noqa: BLE001 (every error is shown to the user)
            self.complain(sentence(error, self.hints))

    def stop_work(self) -> None:
        """Stop the work that only this widget requested, before its dock is closed."""

    def leave(self) -> None:
        """Stop all work of this step, because the dock is closed. Harmless when called again."""
        if self.left:
            return
        self.left = True
        self.destroyed.disconnect(self._at_destruction)  # nothing is left to do, and the session may be gone then
        self.stop_work()
        for kind in (QSignalDebouncer, QSignalThrottler):
            for waiting in self.findChildren(kind):
                waiting.cancel()
        self.viewer.events.theme.disconnect(self.recolour)
        self.session.leave(self.jobs)

    @property
    def complaining(self) -> bool:
        """Whether the message is an error, which stays until the next action."""
        return bool(self.message.styleSheet())

    def _forget_complaint(self) -> None:
        """Clear an error about another layer."""
        if self.complaining:
            self.say("")

    def recolour(self) -> None:
        """Show everything in colours that can be read in the theme of the window, which has been switched."""
        self.colours = Colours.of(self.viewer.theme)
        if self.complaining:
            self.complain(self.message.text())
        for part in self.coloured:
            part.recolour(self.colours)

    def say(self, text: str, tooltip: str = "") -> None:
        """Show a message, and details of it in a tooltip."""
        self._show_message(text, tooltip, "")

    def complain(self, text: str) -> None:
        """Show an error: what is wrong, and what to do."""
        self._show_message(text, "", f"color: {self.colours.bad}")

    def _show_message(self, text: str, tooltip: str, style: str) -> None:
        """Show a message; an equal style is not set again, because Qt would polish the label with all of napari's."""
        if self.message.styleSheet() != style:
            self.message.setStyleSheet(style)
        self.message.setText(text)
        self.message.setToolTip(tooltip)
