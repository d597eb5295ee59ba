"""The base class of the dock widgets: a choice of layer, a message, a progress bar, buttons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from magicgui.widgets import Container, PushButton
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget
from superqt.utils import QSignalDebouncer, QSignalThrottler

from napari_cropeq.gui.hints import HINTS
from napari_cropeq.gui.jobs import Job, sentence
from napari_cropeq.gui.parts.column import Column
from napari_cropeq.gui.parts.layer_choice import LayerChoice
from napari_cropeq.gui.session import Session

__all__ = ["Panel"]


class Panel(QWidget):
    """A dock widget that works on a layer.

    Parameters
    ----------
    viewer : napari viewer
        Given by napari.
    """

    hints: ClassVar[Mapping[str, str]] = HINTS  # what to do about an error, in terms of this widget

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.session = Session.of(viewer)
        self.viewer = self.session.viewer
        self.layer = LayerChoice(self.viewer)
        self.message = QLabel("")
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.form = Container(widgets=[self.layer])
        self.column = Column()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.column)
        self.column.rows.addWidget(self.form.native)
        self.layer.changed.connect(self._forget_complaint)
        self.jobs = self.session.enter()
        self.left = False  # whether its dock has been closed
        session, jobs = self.session, self.jobs

        def leave() -> None:  # not a method, because it is called after the widget is deleted
            for job in jobs:
                with contextlib.suppress(RuntimeError):  # at exit the job may be deleted as well
                    job.blockSignals(True)
            session.leave(jobs)

        self.destroyed.connect(leave)

    def sizeHint(self) -> QSize:
        """Return the size of a narrow column, so that the image keeps most of the window."""
        return QSize(340, 620)

    def add_buttons(self, tooltips: Mapping[str, str], /, **actions: Callable[[], None]) -> dict[str, PushButton]:
        """Add a row of buttons named like the keywords; their errors are shown in the message."""
        row, buttons = QHBoxLayout(), {}
        for name, action in actions.items():
            button = PushButton(text=name.replace("_", " ").capitalize(), tooltip=tooltips[name])
            button.clicked.connect(lambda _=None, action=action: self.pressed(action))
            row.addWidget(button.native)
            buttons[name] = button
        self.column.rows.addLayout(row)
        return buttons

    def add_status(self) -> None:
        """Add progress bar and message; call this after all numbers and choices were added."""
        self.column.rows.addWidget(self.bar)
        self.column.rows.addWidget(self.message)
        self.column.guard_fields()

    def run(
        self, steps: Callable[[], Iterator[Any]], progressed: Callable[[Any], None], ended: Callable[[], None]
    ) -> Job:
        """Run work in the background, which is stopped with this widget; an error is shown in the message."""

        def deliver(value: Any) -> None:
            if not isalive(self.message):  # the window is closed, and the work is about to end
                return
            try:
                progressed(value)
            except Exception as error:  # noqa: BLE001 (every error is shown to the user)
                self.complain(sentence(error, self.hints))

        job = Job(steps, hints=self.hints)
        job.progressed.connect(deliver)
        job.failed.connect(self.complain)
        job.ended.connect(ended)
        self.jobs[:] = [*(j for j in self.jobs if j.running), job]
        job.start()
        return job

    def pressed(self, action: Callable[[], None]) -> None:
        """Run the ``action`` of a button; a number that is being typed is accepted first."""
        self.column.commit_typed()
        self.attempt(action)

    def attempt(self, action: Callable[[], None]) -> None:
        """Run ``action``; an error is shown in the message."""
        self.say("")
        try:
            action()
        except Exception as error:  # noqa: BLE001 (every error is shown to the user)
            self.complain(sentence(error, self.hints))

    def event(self, event: Any) -> bool:
        """Stop the widget's work when its dock is closed: napari then removes its parent."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return bool(super().event(event))

    def stop_work(self) -> None:
        """Stop the work that only this widget requested, before its dock is closed."""

    def _leave(self) -> None:
        if self.left:
            return
        self.left = True
        self.stop_work()
        for kind in (QSignalDebouncer, QSignalThrottler):
            for waiting in self.findChildren(kind):
                waiting.cancel()
        self.layer.stop_following()
        self.session.leave(self.jobs)

    @property
    def complaining(self) -> bool:
        """Whether the message is an error, which stays until the next action."""
        return bool(self.message.styleSheet())

    def _forget_complaint(self) -> None:
        """Clear an error about another layer."""
        if self.complaining:
            self.say("")

    def say(self, text: str) -> None:
        """Show a message."""
        self.message.setStyleSheet("")
        self.message.setText(text)

    def complain(self, text: str) -> None:
        """Show an error: what is wrong, and what to do."""
        self.message.setStyleSheet("color: #ff6b5e")
        self.message.setText(text)
