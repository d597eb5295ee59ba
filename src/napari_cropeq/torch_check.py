"""Whether torch can be used, before the first module that imports it: what is wrong otherwise, and the cure.

The window, the command line and the public functions call :func:`check_torch`. Without it, the error would be one of
whichever module is imported first, and would name no remedy.
"""

from __future__ import annotations

import importlib.metadata
import sys

from napari_cropeq.errors import MissingPackageError

__all__ = ["LOAD_FIRST", "OLDEST", "check_torch"]

OLDEST = (2, 6)
"""As in pyproject.toml."""

INSTALL = f'Install it with: pip install "torch>={OLDEST[0]}.{OLDEST[1]}"'
UPDATE = INSTALL.replace("Install it with: pip install", "Update it with: pip install --upgrade")
REPAIR = "Install it again with: pip install --force-reinstall torch"
# On Windows, Qt may load an older C++ runtime than torch needs; the first one that a process loads is used by both.
LOAD_FIRST = 'Start napari with: python -c "import torch; from napari.__main__ import main; main()"'


def check_torch() -> None:
    """Import torch.

    Raises
    ------
    MissingPackageError
        If it is not installed, too old, or cannot be loaded.
    """
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = ""  # a build without metadata, or none
    if version and _release(version) < OLDEST:
        raise MissingPackageError(
            f"torch {version} is installed, but {OLDEST[0]}.{OLDEST[1]} or newer is needed.", UPDATE
        )
    try:
        import torch  # noqa: F401
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise MissingPackageError(
                "The package torch, which trains and applies networks, is not installed.", INSTALL
            ) from error
        raise _broken(error) from error
    except OSError as error:  # a library that cannot be loaded
        raise _broken(error) from error


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor number of a version such as ``2.13.0+cpu`` or ``2.7.0a0``."""
    return tuple(int(number) for number in version.split(".")[:2] if number.isdigit())


def _broken(error: Exception) -> MissingPackageError:
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    qt_is_first = any(name in sys.modules for name in ("PyQt6.QtCore", "PySide6.QtCore"))
    remedy = LOAD_FIRST if sys.platform == "win32" and qt_is_first else REPAIR
    return MissingPackageError(f"torch is installed, but cannot be loaded ({first[:200]}).", remedy)
