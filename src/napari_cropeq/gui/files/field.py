"""The name of a file or folder, and a dialog to choose it that opens in the folder that was used last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicgui.widgets import FileEdit
from qtpy.QtWidgets import QFileDialog

from napari_cropeq.gui.last_used import last_folder, remember

__all__ = ["FileField"]


class FileField(FileEdit):
    """A field for a file, several files, or a folder; it may be empty.

    Parameters
    ----------
    purpose : str
        Fields with the same purpose share the folder that their dialogs open in: ``models``, ``results``, ``images``.
    mode : str
        ``r``: a file; ``rm``: files; ``w``: a file that need not exist; ``d``: a folder.
    **options
        See :class:`magicgui.widgets.FileEdit`.
    """

    def __init__(self, purpose: str, mode: str, **options: Any) -> None:
        super().__init__(mode=mode, nullable=True, **{"value": None} | options)
        self.purpose = purpose
        self.line_edit.tooltip = options["tooltip"]
        self.choose_btn.text = "Browse"  # its own text leaves a narrow window no room for the name
        self.choose_btn.tooltip = "Choose a folder" if mode == "d" else "Choose a file"
        self.choose_btn.changed.disconnect()  # magicgui's dialog opens in the folder that napari was started from
        self.choose_btn.changed.connect(self.browse)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The chosen files or folders."""
        value = self.value
        paths = value if isinstance(value, tuple) else () if value is None else (value,)
        return tuple(path for path in paths if str(path).strip() not in ("", "."))

    @property
    def path(self) -> Path | None:
        """The chosen file or folder; None if the field is empty."""
        return next(iter(self.paths), None)

    def browse(self) -> None:
        """Show the dialog, and remember the folder of what is chosen."""
        start, parent = str(self.start() or ""), self.choose_btn.native
        if self.mode.value == "d":
            chosen: Any = QFileDialog.getExistingDirectory(parent, "Choose a folder", start)
        elif self.mode.value == "w":  # the name may exist: a model is loaded by it, and no file is replaced unasked
            free = QFileDialog.Option.DontConfirmOverwrite
            chosen, _ = QFileDialog.getSaveFileName(parent, "Choose a file", start, self.filter or "", options=free)
        else:
            ask = QFileDialog.getOpenFileNames if self.mode.value == "rm" else QFileDialog.getOpenFileName
            chosen, _ = ask(parent, "Choose a file", start, self.filter or "")
        if chosen:
            self.value = chosen
            self.remember_folder()

    def start(self) -> Path | None:
        """Return what the dialog opens with: what is in the field, or else the folder that was used last."""
        path = self.path
        known = None if path is None else next((p for p in (path, path.parent) if p.is_dir()), None)
        if path is None or known is None or not path.is_absolute():
            folder = last_folder(self.purpose)
            return folder if folder is None or path is None or self.mode.value == "d" else folder / path.name
        return path if self.mode.value == "w" else known

    def remember_folder(self) -> None:
        """Remember the folder of the field for the next dialog, in this session or another."""
        path = self.path
        if path is not None and path.is_absolute():
            remember(**{self.purpose: str(path if self.mode.value == "d" else path.parent)})
