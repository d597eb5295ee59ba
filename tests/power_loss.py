"""What a loss of power can leave of the files of a run: its file operations are recorded, and replayed in part.

The model of the disk is POSIX, and not one file system. A content that was synced with its file is safe. Any other is
lost, half written, written with zeros in its place, or whole. A name that was created, changed or removed is safe once
its folder was synced after that (for a rename, the folder of the new name); any other change may or may not have
happened, in any order, but two changes of the same name stay in their order, a rename is done or not done, and a folder
is removed only when it is empty. A sync of a file does not make its name safe, nor that of a folder the folders above.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = tuple[int, str]  # number of a folder, and a name in it
ROOT = 0


@dataclass(frozen=True)
class Named:
    """A change of names: a file or folder gets the last of ``entries`` and loses the others, or loses it as well."""

    kind: str
    entries: tuple[Entry, ...]
    node: int


@dataclass(frozen=True)
class Written:
    """The content of a file after some writes."""

    node: int
    content: bytes


@dataclass(frozen=True)
class Synced:
    """A file or folder was synced."""

    node: int


@dataclass
class Disk:
    """Names and contents; files and folders have numbers."""

    names: dict[Entry, int] = field(default_factory=dict)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    contents: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> Disk:
        """Return a disk with the same content."""
        return Disk(dict(self.names), set(self.folders), dict(self.contents))

    def apply(self, operation: Any) -> None:
        """Do an operation."""
        if isinstance(operation, Written):
            self.contents[operation.node] = operation.content
        elif isinstance(operation, Named):
            *old, last = operation.entries
            for entry in old:
                self.names.pop(entry, None)
            if operation.kind in ("unlink", "rmdir"):
                self.names.pop(last, None)
                return
            self.names[last] = operation.node
            if operation.kind == "mkdir":
                self.folders.add(operation.node)
            elif operation.kind == "create":
                self.contents.setdefault(operation.node, b"")

    def find(self, path: str) -> int | None:
        """Return the number of a file or folder, by its path."""
        node: int | None = ROOT
        for name in path.split("/") if path else ():
            node = None if node is None else self.names.get((node, name))
        return node

    def tree(self) -> dict[str, bytes | None]:
        """Return the contents of all files by their paths; folders have None."""
        inside: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), node in self.names.items():
            inside.setdefault(folder, []).append((name, node))

        def walk(folder: int, path: str) -> Iterator[tuple[str, bytes | None]]:
            for name, node in inside.get(folder, ()):
                yield path + name, None if node in self.folders else self.contents[node]
                if node in self.folders:
                    yield from walk(node, f"{path}{name}/")

        return dict(sorted(walk(ROOT, "")))


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Return the contents of all files in a folder by their paths; folders have None."""
    found = {p.relative_to(folder).as_posix(): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}
    return dict(sorted(found.items()))


@dataclass
class Trace:
    """What was on a disk at the start, the operations of a run, and what was there in the end."""

    start: Disk
    operations: list[Any]
    end: dict[str, bytes | None]
    inodes: dict[int, int]  # by number of the file
    missed: list[str]  # operations that the recorder could not follow
    marks: list[tuple[int, Any]]  # what the run said, after how many operations

    def whole(self) -> Disk:
        """Return the disk after all operations."""
        disk = self.start.copy()
        for operation in self.operations:
            disk.apply(operation)
        return disk


# -- recording -----------------------------------------------------------------------------------------


class Recorder:
    """Records all operations on the files in a folder, in a process that does nothing else.

    Functions of :mod:`os` that change names, or sync, are wrapped. Before each of them, and before a file is opened for
    writing, the whole folder is compared with what is known of it: files and contents that are new were written
    meanwhile, by whatever means. An operation that is heard by the interpreter but went through no wrapper is noted as
    missed.
    """

    HEARD = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")

    def __init__(self, root: Path) -> None:
        self.root, self.disk = str(root), Disk()
        self.operations: list[Any] = []
        self.inodes: dict[int, int] = {}
        self.missed: list[str] = []
        self.marks: list[tuple[int, Any]] = []
        self._lock, self._here, self._active = threading.RLock(), threading.local(), True
        self._scan()
        self.start = self.disk.copy()
        self.operations.clear()
        for name in ("rename", "link", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self._naming(getattr(os, name), name))
        os.replace, os.remove = self._naming(os.replace, "rename"), self._naming(os.remove, "unlink")
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._syncing(getattr(os, name)))
        sys.addaudithook(self._heard)

    def mark(self, what: Any) -> None:
        """Note something that the run says."""
        with self._lock:
            self.marks.append((len(self.operations), what))

    def trace(self) -> Trace:
        """Return what was recorded."""
        with self._lock:
            self._scan()
            self._active = False
            return Trace(self.start, self.operations, tree_of(Path(self.root)), self.inodes, self.missed, self.marks)

    def _do(self, operation: Any) -> None:
        self.disk.apply(operation)
        self.operations.append(operation)

    def _relative(self, path: Any, folder: int | None = None) -> str | None:
        """Return a path in the folder; None if it is not in it."""
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):
            return None
        base = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        whole = os.path.normpath(os.path.join(base, os.fspath(path)))
        return whole[len(self.root) + 1 :] if whole.startswith(self.root + os.sep) else None

    def _entry(self, path: str) -> Entry:
        folder, _, name = path.rpartition("/")
        node = self.disk.find(folder)
        assert node is not None, path
        return node, name

    def _naming(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        keys = ("src_dir_fd", "dst_dir_fd") if kind in ("rename", "link") else ("dir_fd",)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            paths = [self._relative(path, options.get(key)) for path, key in zip(arguments, keys, strict=False)]
            if not self._active or not any(paths):
                return function(*arguments, **options)
            with self._lock, self._inside():
                self._scan()
                returned = function(*arguments, **options)
                if None in paths:
                    self.missed.append(f"{kind} {paths}: from or to another place")
                elif kind == "mkdir":
                    self._new(kind, str(paths[0]))
                else:
                    entries = tuple(self._entry(str(path)) for path in paths)
                    self._do(Named(kind, entries[kind == "link" :], self.disk.names[entries[0]]))
                return returned

        return wrapped

    def _syncing(self, function: Callable[[int], None]) -> Callable[[int], None]:
        @functools.wraps(function)
        def wrapped(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            if not self._active or not (path + os.sep).startswith(self.root + os.sep):
                return function(handle)
            with self._lock, self._inside():
                self._scan()
                function(handle)
                node = self.disk.find(path[len(self.root) + 1 :])
                if node is not None:  # not removed meanwhile
                    self._do(Synced(node))

        return wrapped

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or getattr(self._here, "busy", False):
            return
        if event in self.HEARD:
            if any(self._relative(path) for path in arguments[:2]):
                self.missed.append(f"{event} {arguments}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = self._relative(arguments[0])
            if path is None:
                return
            with self._lock, self._inside():
                self._scan()
                node = self.disk.find(path)
                if node is not None and arguments[2] & os.O_TRUNC and self.disk.contents[node]:
                    self._do(Written(node, b""))

    def _inside(self) -> _Busy:
        return _Busy(self._here)

    def _scan(self) -> None:
        """Record what was created and written since the last look."""
        with self._inside():
            for place, folders, files in os.walk(self.root):
                here = place[len(self.root) + 1 :] + "/" if place != self.root else ""
                for name in sorted(folders):
                    if self.disk.find(here + name) is None:
                        self._new("mkdir", here + name)
                for name in sorted(files):
                    node = self.disk.find(here + name) or self._new("create", here + name)
                    content = Path(place, name).read_bytes()
                    if self.disk.contents[node] != content:
                        self._do(Written(node, content))

    def _new(self, kind: str, path: str) -> int:
        node = len(self.inodes) + 1
        self.inodes[node] = os.stat(os.path.join(self.root, path)).st_ino
        self._do(Named(kind, (self._entry(path),), node))
        return node


class _Busy:
    """Operations of the recorder itself are not recorded."""

    def __init__(self, here: threading.local) -> None:
        self._here, self._before = here, getattr(here, "busy", False)

    def __enter__(self) -> None:
        self._here.busy = True

    def __exit__(self, *_: object) -> None:
        self._here.busy = self._before


def record(
    folder: Path, result: Path, run: Callable[[Path, Callable[[Any], None]], None], changes: Iterable[Any]
) -> None:
    """Record a run in this process, which is not used for anything else, and keep its trace in a file."""
    for change in changes:
        change()
    recorder = Recorder(folder)
    run(folder, recorder.mark)
    result.write_bytes(pickle.dumps(recorder.trace()))


# -- the states that a crash can leave -----------------------------------------------------------------


def whole(past: list[bytes]) -> bytes:
    """Return the last content of a file."""
    return past[-1]


def old(past: list[bytes]) -> bytes:
    """Return its last content that was synced."""
    return past[0]


def lost(past: list[bytes]) -> bytes:
    """Return nothing but what was synced and has not been written again."""
    return past[0] if all(later.startswith(past[0]) for later in past) else b""


def half(past: list[bytes]) -> bytes:
    """Return half of what was written since."""
    kept = len(lost(past))
    return past[-1][: kept + (len(past[-1]) - kept) // 2]


def zeros(past: list[bytes]) -> bytes:
    """Return zeros for what was written since, as where only the size of a file was kept."""
    return lost(past) + bytes(len(past[-1]) - len(lost(past)))


Choice = Callable[[list[bytes]], bytes]
CHOICES: tuple[Choice, ...] = (whole, old, lost, half, zeros)


@dataclass(frozen=True)
class State:
    """What a loss of power after some operations can leave."""

    after: int  # operations
    what: str
    disk: Disk

    @functools.cached_property
    def tree(self) -> dict[str, bytes | None]:
        """The contents of all files by their paths; folders have None."""
        return self.disk.tree()

    @property
    def key(self) -> int:
        """The same for the same content; lock files, which are empty, do not count."""
        return hash(tuple((path, content) for path, content in self.tree.items() if ".lock-" not in path))


def states(trace: Trace) -> Iterator[State]:
    """Yield the states that a loss of power can leave after each operation of a run, the earliest first."""
    replay = Replay(trace)
    for after in range(len(trace.operations) + 1):
        yield from {state.key: state for state in replay.after(after)}.values()


class Replay:
    """What was safe after each operation of a run, and what was not."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._synced: dict[int, list[int]] = {}
        for number, operation in enumerate(trace.operations):
            if isinstance(operation, Synced):
                self._synced.setdefault(operation.node, []).append(number)

    def after(self, after: int) -> Iterator[State]:
        """Yield the states after some operations: the extremes, an earlier end, and each change alone lost or kept."""
        past = self._past(after)
        names = [n for n, operation in enumerate(self.trace.operations[:after]) if isinstance(operation, Named)]
        safe = self._safe(after, names)
        unsafe = [n for n in names if n not in safe]

        def state(what: str, kept: Iterable[int], rest: Choice, one: int = -1, choice: Choice = whole) -> State:
            disk = self.trace.start.copy()
            for number in sorted(kept):
                disk.apply(self.trace.operations[number])
            disk.contents |= {node: (choice if node == one else rest)(contents) for node, contents in past.items()}
            return State(after, what, disk)

        for what, kept in (("all names", set(names)), ("safe names", safe)):
            for rest in CHOICES:
                yield state(f"{what}, {rest.__name__}", kept, rest)
        for end in (n for n in unsafe if n > max(safe, default=-1)):  # in order, as most file systems keep them
            for rest in (whole, lost):
                yield state(f"names before {end}, {rest.__name__}", (n for n in names if n < end), rest)
        for one in unsafe:
            yield state(f"all names but {one}", set(names) - self._with_later(one, names), whole)
            for rest in (whole, lost):
                yield state(f"only name {one}, {rest.__name__}", safe | self._with_earlier(one, names), rest)
        for one in (node for node, contents in past.items() if len(contents) > 1):
            for choice in (old, lost, half, zeros):
                yield state(f"file {one} {choice.__name__}", names, whole, one, choice)
            yield state(f"only file {one} whole", names, lost, one, whole)

    def _past(self, after: int) -> dict[int, list[bytes]]:
        """Return for each file that was written the content that is safe, and then all later ones."""
        found: dict[int, list[bytes]] = {}
        for operation in self.trace.operations[:after]:
            if isinstance(operation, Written):
                before = self.trace.start.contents.get(operation.node, b"")
                found.setdefault(operation.node, [before]).append(operation.content)
            elif isinstance(operation, Synced) and operation.node in found:
                del found[operation.node][:-1]
        return found

    def _safe(self, after: int, names: list[int]) -> set[int]:
        """Return the changes of names that cannot be lost."""
        safe: set[int] = set()
        for number in names:
            folder, _ = self.trace.operations[number].entries[-1]
            if any(number < n < after for n in self._synced.get(folder, ())):
                safe |= self._with_earlier(number, names)
        return safe

    def _with_earlier(self, number: int, names: list[int]) -> set[int]:
        """Return a change, and those that must have happened before."""
        needed = {number}
        for earlier in reversed([n for n in names if n < number]):
            if any(earlier < later and self._follows(later, earlier) for later in needed):
                needed.add(earlier)
        return needed

    def _with_later(self, number: int, names: list[int]) -> set[int]:
        """Return a change, and those that cannot have happened without it."""
        without = {number}
        for later in (n for n in names if n > number):
            if any(self._follows(later, earlier) for earlier in without):
                without.add(later)
        return without

    def _follows(self, later: int, earlier: int) -> bool:
        one, other = self.trace.operations[later], self.trace.operations[earlier]
        emptied = one.kind == "rmdir" and any(folder == one.node for folder, _ in other.entries)
        return emptied or not set(one.entries).isdisjoint(other.entries)


def write(state: State, trace: Trace, folder: Path) -> None:
    """Write what a loss of power left to an empty folder.

    The number of an inode, by which a store knows its own output, is that of the copy.
    """
    inodes = {}
    for path, content in state.tree.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
            node = state.disk.find(path)
            assert node is not None
            inodes[str(trace.inodes[node])] = str((folder / path).stat().st_ino)
    for placed in folder.rglob(".cropeq/placed"):
        inode, _, size = placed.read_text().partition(" ")
        if size.strip("\0"):
            placed.write_text(f"{inodes.get(inode, '0')} {size}")
