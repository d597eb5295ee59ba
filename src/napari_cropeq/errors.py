"""The errors that callers tell apart by their type; this module imports nothing.

Every error that a user can fix is a :class:`CropeqError`. It keeps the problem and the remedy apart, so that a
front end can replace the remedy with its own: the command line names an option, the window a field.
Each is a subclass of the built-in error that fits, so ``except ValueError`` works as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AccessError",
    "ArgumentError",
    "ClusterError",
    "CompletedMeanwhileError",
    "CropeqError",
    "DivergedError",
    "ImageError",
    "InUseError",
    "MismatchError",
    "MissingFileError",
    "MissingPackageError",
    "ModelFileError",
    "OutOfMemoryError",
    "OutputExistsError",
    "SourceChangedError",
    "StoppedError",
    "VoxelSizeError",
    "WrongTypeError",
]


class CropeqError(Exception):
    """A problem that the user can fix.

    Parameters
    ----------
    problem : str
        What is wrong, in one or two sentences.
    remedy : str, optional
        What to do about it, in one sentence.
    setting : str, optional
        Name of the setting or argument to change, such as ``"voxel_size"``. Front ends look up their own remedy by
        it.

    Attributes
    ----------
    problem, remedy, setting : str
        As given; characters that cannot be printed, such as line breaks in a file's metadata, are escaped.
    """

    def __init__(self, problem: str, remedy: str = "", *, setting: str = "") -> None:
        problem, remedy = _printable(problem), _printable(remedy)
        super().__init__(f"{problem} {remedy}".strip())
        self.problem, self.remedy, self.setting = problem, remedy, setting

    def __str__(self) -> str:
        """Return problem and remedy; never an error number."""
        return self.sentence({})

    # Not `message`: napari shows an attribute of that name, and expects a text.
    def sentence(self, hints: Mapping[str, str]) -> str:
        """Return the problem with the hint for its setting, or with the remedy where ``hints`` has none."""
        return f"{self.problem} {hints.get(self.setting, self.remedy)}".strip()


def _printable(text: str) -> str:
    """Escape what a terminal or a window would not show, or would act on; a message is one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ArgumentError(CropeqError, ValueError):
    """An argument or a setting has a value that cannot be used.

    Usual causes: a number out of range, a misspelled name, or two settings that exclude each other.
    """


class WrongTypeError(CropeqError, TypeError):
    """An argument is of a type that cannot be used.

    Usual cause: in a script, a text where a number or an array is needed.
    """


class ImageError(CropeqError, ValueError):
    """An image cannot be read, or cannot be super-resolved.

    Usual causes: a file that was cut short while it was copied, another kind of image (2D, RGB, labels), or
    one that is too small.
    """


class VoxelSizeError(ImageError):
    """The voxel size of an image is not known or cannot be right.

    Usual causes: the file does not store it, or another program saved the file without it.
    """


class ModelFileError(CropeqError, ValueError):
    """A model file or a training checkpoint is damaged, or is neither.

    Usual causes: another file was chosen, or the file was cut short while it was copied.
    """


class MismatchError(CropeqError, ValueError):
    """Two things do not belong together, such as a model and an image, or an unfinished run and its settings.

    Usual causes: a model of another factor, or settings that were changed between a run and its resumption.
    """


class MissingFileError(CropeqError, FileNotFoundError):
    """A file or folder does not exist.

    Usual causes: a misspelled name, another working folder, or a file that was moved.
    """


class OutputExistsError(CropeqError, FileExistsError):
    """The output exists already, complete or unfinished.

    Usual cause: the same work was started before.
    """


class CompletedMeanwhileError(OutputExistsError):
    """Another process that shares the work has just completed the output: nothing is left to do.

    Usual cause: several processes of a job array reach the end together.
    """


class AccessError(CropeqError, OSError):
    """A file or folder cannot be read or written, or its disk is full.

    Usual causes: no permission, a full disk, a network drive that is gone, or a damaged file.
    """


class SourceChangedError(AccessError):
    """A file of an image was replaced, changed or removed while the image is read.

    Usual causes: another program still writes the file, or saved it again.
    """


class InUseError(CropeqError, BlockingIOError):
    """Another process is writing the same output.

    Usual cause: the same work was started twice, in two windows or terminals.
    """


class MissingPackageError(CropeqError, ImportError):
    """A package is not installed, is too old, or cannot be loaded.

    Usual cause: an extra of this package is not installed.
    """


class OutOfMemoryError(CropeqError, MemoryError):
    """Memory does not suffice even for the smallest piece of the work.

    Usual causes: other programs that need the memory, or a device with little of it.
    """

    def __new__(cls, *args: object, **_: object) -> OutOfMemoryError:
        """Return an error that tblib, which sends errors between Dask's processes, can create: MemoryError cannot."""
        return Exception.__new__(cls, *args)


class DivergedError(CropeqError, ArithmeticError):
    """The loss of a training became NaN or infinite.

    Usual causes: a high learning rate, or an image with few voxels far brighter than all others.
    """


class ClusterError(CropeqError, ConnectionError):
    """The connection to a cluster, or its workers, failed.

    Usual causes: a wrong address, a firewall, or workers that ran out of memory or time.
    """


class StoppedError(Exception):
    """The caller asked a computation to stop between two calls of the network."""
