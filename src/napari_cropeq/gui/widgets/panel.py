"""What every dock widget has: a layer to choose, a message, a progress bar, buttons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from magicgui.widgets import Container, PushButton
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget
from superqt.utils import QSignalDebouncer, QSignalThrottler

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

        def leave() -> None:  # called once the widget is gone, so that it must not belong to it
            for job in jobs:
                with contextlib.suppress(RuntimeError):  # at the end of the application it may be gone as well
                    job.blockSignals(True)
            session.leave(jobs)

        self.destroyed.connect(leave)

    def sizeHint(self) -> QSize:
        """Ask for a column: the image keeps the room."""
        return QSize(340, 620)

    def add_buttons(self, **actions: Callable[[], None]) -> dict[str, PushButton]:
        """Add a row of buttons named as the keywords; their errors end up in the message."""
        row, buttons = QHBoxLayout(), {}
        for name, action in actions.items():
            button = PushButton(text=name.replace("_", " ").capitalize())
            button.clicked.connect(lambda _=None, action=action: self.pressed(action))
            row.addWidget(button.native)
            buttons[name] = button
        self.column.rows.addLayout(row)
        return buttons

    def add_status(self) -> None:
        """Add progress bar and message below what is there; numbers and choices are complete by now."""
        self.column.rows.addWidget(self.bar)
        self.column.rows.addWidget(self.message)
        self.column.guard_fields()

    def run(
        self, steps: Callable[[], Iterator[Any]], progressed: Callable[[Any], None], ended: Callable[[], None]
    ) -> Job:
        """Do work in the background that ends with this widget; an error is told in the message."""

        def deliver(value: Any) -> None:
            if not isalive(self.message):  # the window has gone, and the work is about to end
                return
            try:
                progressed(value)
            except Exception as error:  # noqa: BLE001 (whatever it is, the user is told)
                self.complain(sentence(error))

        job = Job(steps)
        job.progressed.connect(deliver)
        job.failed.connect(self.complain)
        job.ended.connect(ended)
        self.jobs[:] = [*(j for j in self.jobs if j.running), job]
        job.start()
        return job

    def pressed(self, action: Callable[[], None]) -> None:
        """Run the ``action`` of a button, with the number that is being typed."""
        self.column.take_typed()
        self.attempt(action)

    def attempt(self, action: Callable[[], None]) -> None:
        """Run ``action``; an error is told in the message, and nothing is lost."""
        self.say("")
        try:
            action()
        except Exception as error:  # noqa: BLE001 (whatever it is, the user is told)
            self.complain(sentence(error))

    def event(self, event: Any) -> bool:
        """Stop the widget's work when its dock is closed: napari then takes its parent away."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return bool(super().event(event))

    def stop_work(self) -> None:
        """Stop what this widget alone has asked for, before its dock goes."""

    def _leave(self) -> None:
        if self.left:
            return
        self.left = True
        self.stop_work()
        for kind in (QSignalDebouncer, QSignalThrottler):
            for waiting in self.findChildren(kind):
                waiting.cancel()
        self.layer.let_go()
        self.session.leave(self.jobs)

    @property
    def complaining(self) -> bool:
        """Whether the message is an error, which stays until the next action."""
        return bool(self.message.styleSheet())

    def _forget_complaint(self) -> None:
        """Clear an error that was about another layer."""
        if self.complaining:
            self.say("")

    def say(self, text: str) -> None:
        """Show a message."""
        self.message.setStyleSheet("")
        self.message.setText(text)

    def complain(self, text: str) -> None:
        """Show an error: one sentence that says got, expected, what to do."""
        self.message.setStyleSheet("color: #ff6b5e")
        self.message.setText(text)
