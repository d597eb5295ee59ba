"""Damage to files as data: a case is a list of edits, so that one that was found can be kept as a test."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile

NESTED = "nested lists, this deep: "  # JSON cannot write them: Python's recursion ends before
NUMBER = re.compile(rf'"{NESTED}(\d+)"|\\"{NESTED}(\d+)\\"')
TEXT = "cropeq"  # entry of a model's header whose value is JSON again

Edit = tuple[Any, ...]
"""File, operation, and what the operation needs: see :func:`apply`."""


def apply(folder: Path, edits: list[Edit]) -> None:
    """Damage the files of a folder; an edit whose place is gone does nothing."""
    for name, operation, *rest in edits:
        path = folder / name
        if path.is_file():
            OPERATIONS[operation](path, *rest)


# -- bytes ---------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, digits: str) -> None:
    """Replace bytes, given in hexadecimal digits; those of a .gz file are the unpacked ones."""
    content, new = bytearray(_unpacked(path)), bytes.fromhex(digits)
    content[offset : offset + len(new)] = new
    _pack(path, bytes(content))


def overwrite_packed(path: Path, offset: int, digits: str) -> None:
    """Replace bytes of a compressed file as they are on disk."""
    content, new = bytearray(path.read_bytes()), bytes.fromhex(digits)
    content[offset : offset + len(new)] = new
    path.write_bytes(content)


def cut(path: Path, length: int) -> None:
    """Keep only the first bytes."""
    os.truncate(path, min(length, path.stat().st_size))


def append(path: Path, digits: str) -> None:
    """Add bytes at the end."""
    with open(path, "ab") as file:
        file.write(bytes.fromhex(digits))


def exchange(path: Path, other: str) -> None:
    """Exchange the content of two files of a folder; ``other`` is relative to that of the first."""
    second = path.parent / other
    if second.is_file():
        first, content = path.read_bytes(), second.read_bytes()
        path.write_bytes(content), second.write_bytes(first)


def line(path: Path, number: int, times: int) -> None:
    """Repeat a line of a text; 0 times removes it."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number : number + 1] = lines[number : number + 1] * times
    path.write_bytes(b"".join(lines))


def record(path: Path, number: int, pointer: list[int], value: Any) -> None:
    """Replace a value in a line of JSON, and leave its checksum."""
    lines = path.read_text(errors="replace").splitlines()
    try:
        values = json.loads(lines[number])
        at(values, tuple(pointer[:-1]))[pointer[-1]] = value
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # empty, or damaged by an edit before
    lines[number] = json.dumps(values)
    path.write_text("\n".join(lines) + "\n")


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error):  # damaged by an edit before
        return content


def _pack(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


# -- JSON ----------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Return the JSON of a file, or of the header of a .safetensors file."""
    content = path.read_bytes()
    if path.suffix != ".safetensors":
        return json.loads(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header["__metadata__"][TEXT] = json.loads(header["__metadata__"][TEXT])
    return header


def write_json(path: Path, value: Any) -> None:
    """Write it back; :data:`NESTED` values become lists in lists."""
    if path.suffix != ".safetensors":
        path.write_text(_nested(json.dumps(value)))
        return
    content = path.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    inner = value.get("__metadata__") if isinstance(value, dict) else None
    if isinstance(inner, dict) and not isinstance(inner.get(TEXT, ""), str):
        inner[TEXT] = json.dumps(inner[TEXT])
    header = _nested(json.dumps(value)).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


def _nested(text: str) -> str:
    def lists(match: re.Match[str]) -> str:
        depth = int(match[1] or match[2])
        return "[" * depth + "]" * depth

    return NUMBER.sub(lists, text)


def pointers(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value in JSON, and to the values in it."""
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from pointers(inner, (*above, key))


def at(value: Any, pointer: tuple[Any, ...]) -> Any:
    """Return a value in JSON."""
    for key in pointer:
        value = value[key]
    return value


def change(path: Path, pointer: list[Any], value: Any) -> None:
    """Replace a value in JSON."""
    _change(path, pointer, lambda inside, key: inside.__setitem__(key, value), value)


def take(path: Path, pointer: list[Any]) -> None:
    """Remove a value from JSON."""
    _change(path, pointer, lambda inside, key: inside.__delitem__(key), None)


def _change(path: Path, pointer: list[Any], act: Any, whole: Any) -> None:
    try:
        found = read_json(path)
        if not pointer:
            found = whole
        else:
            act(at(found, tuple(pointer[:-1])), pointer[-1])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # damaged by an edit before
    write_json(path, found)


# -- OME-XML -------------------------------------------------------------------------------------------

ATTRIBUTE = re.compile(r'([A-Za-z]+)="([^"]*)"')
ELEMENT = re.compile(r"<([A-Z][A-Za-z]*)\b[^>]*?/>")


def attribute(path: Path, number: int, value: str | None) -> None:
    """Replace the value of an attribute in the OME-XML; None removes the attribute."""
    _rewrite(path, ATTRIBUTE, number, lambda match: "" if value is None else f'{match[1]}="{value}"')


def element(path: Path, number: int, times: int) -> None:
    """Repeat an element without content in the OME-XML; 0 times removes it."""
    _rewrite(path, ELEMENT, number, lambda match: match[0] * times)


def _rewrite(path: Path, pattern: re.Pattern[str], number: int, new: Any) -> None:
    try:
        xml = tifffile.tiffcomment(path) or ""
        found = list(pattern.finditer(xml))
        if number < len(found):
            match = found[number]
            tifffile.tiffcomment(path, (xml[: match.start()] + new(match) + xml[match.end() :]).encode())
    except Exception:  # noqa: BLE001 (damaged by an edit before)
        return


OPERATIONS = {
    "overwrite": overwrite,
    "overwrite packed": overwrite_packed,
    "cut": cut,
    "append": append,
    "exchange": exchange,
    "line": line,
    "record": record,
    "delete": Path.unlink,
    "text": Path.write_text,
    "change": change,
    "take": take,
    "attribute": attribute,
    "element": element,
}
