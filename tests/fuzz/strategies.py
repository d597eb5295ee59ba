"""Strategies that draw edits: they know the structure of a file, and prefer values that are close to right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile
from hypothesis import strategies as st

from fuzz.edits import ATTRIBUTE, ELEMENT, NESTED, Edit, at, pointers, read_json

VALUES = [None, True, False, -1, 0, 1, 2, 3, 10**30, 2**63, 2**62, 10**8, 1e308, -1e308, 1.5, float("nan"), "", "x"]
VALUES += ["1", "9" * 400, "µ\n", "zyx", [], {}, [[]], [1], [1, 1, 1], {"a": 1}, [[1, 2], [3]], {"name": "x"}]
VALUES += [f"{NESTED}{depth}" for depth in (100, 2000, 100_000)]
WORDS = ["uint8", "int16", "uint16", "float16", "float32", "<u2", ">u2", "<i2", "<f2", "|u1", "little", "big", "C", "F"]
WORDS += ["gzip", "zstd", "blosc", "crc32c", "bytes", "transpose", "regular", "default", "v2", "/", ".", "start", "end"]
WORDS += [
    "0",
    "1",
    "scale",
    "translation",
    "z",
    "y",
    "x",
    "t",
    "c",
    "micrometer",
    "nanometer",
    "space",
    "array",
    "group",
]
TEXTS = ["", "{", "[" * 100_000, "null", "1", '"x"', "[]", "{}", "\x00" * 50, '{"zarr_format": 3, "nod', "\ufeff{}"]
XML = [None, "", "-1", "0", "1", "2", "4", "8", "15", "17", "32", "1e308", "1e400", "nan", "x", "9" * 40, "99999999"]
XML += ["1000", "XYCZT", "XYTZC", "XYZTC", "µm", "nm", "Å", "uint8", "int16", "uint16", "float", "bit", "true", "&#0;"]


def json_edits(folder: Path, names: Sequence[str]) -> st.SearchStrategy[Edit]:
    """Draw an edit of the JSON in one of some files: a value, its removal, or the text of the file."""
    places = [(name, pointer) for name in names for pointer in pointers(read_json(folder / name))]
    whole = {name: read_json(folder / name) for name in names}

    def changed(place: tuple[str, tuple[Any, ...]]) -> st.SearchStrategy[Edit]:
        name, pointer = place
        new = st.sampled_from(VALUES) | st.sampled_from([*near(at(whole[name], pointer)), *WORDS])
        change = new.map(lambda value: (name, "change", list(pointer), value))
        return change | st.just((name, "take", list(pointer))) if pointer else change

    texts = st.tuples(st.sampled_from(names), st.just("text"), st.sampled_from(TEXTS))
    sized = [(folder / name).stat().st_size for name in names]
    bytewise = st.one_of([byte_edits(name, range(size)) for name, size in zip(names, sized, strict=True)])
    often = st.sampled_from(places).flatmap(changed)
    return st.integers(0, 9).flatmap(lambda n: often if n < 8 else texts if n == 8 else bytewise)


def near(value: Any) -> list[Any]:
    """Return values that are like one in JSON."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value - 1, value + 1, 2 * value, value // 2, float(value), str(value), -value]
    if isinstance(value, float):
        return [2 * value, -value, value + 1e-9, str(value)]
    if isinstance(value, str):
        return [value + "x", value[:-1], value.upper(), "../" + value, "/" + value]
    if isinstance(value, list):
        return [value[::-1], value[:-1], value + value, [*value, *value[-1:]], [value]]
    if isinstance(value, dict):
        return [dict(list(value.items())[1:]), {**value, "x": 1}, [value]]
    return []


def byte_edits(name: str, where: Sequence[int], operation: str = "overwrite") -> st.SearchStrategy[Edit]:
    """Draw an edit of one to four bytes at one of some places, or of the length of the file."""
    digits = st.sampled_from(["00", "01", "ff", "7f", "80", "ffffffff", "ffffff7f", "00000000", "01020304"])
    digits |= st.integers(0, 255).map(lambda n: f"{n:02x}")
    written = st.tuples(st.just(name), st.just(operation), st.sampled_from(where), digits)
    length = st.tuples(st.just(name), st.just("cut"), st.sampled_from(where)) | st.just((name, "cut", 0))
    length |= st.tuples(st.just(name), st.just("append"), st.sampled_from(["00", "ff" * 1000]))
    return st.integers(0, 9).flatmap(lambda n: written if n < 8 else length)


def field_edits(
    name: str, fields: Sequence[tuple[int, int]], content: bytes, order: str = "little"
) -> st.SearchStrategy[Edit]:
    """Draw another value for a binary field, given by its offset and its length in bytes."""

    def changed(field: tuple[int, int]) -> st.SearchStrategy[Edit]:
        offset, length = field
        old = int.from_bytes(content[offset : offset + length], order)
        values = [0, 1, 2, 3, 4, 8, 16, 32, 255, 256, old - 1, old + 1, 2 * old, old // 2, 2 ** (8 * length) - 1]
        values += [2 ** (8 * length - 1), 2 ** (8 * length - 1) - 1]
        digits = sorted({(value % 2 ** (8 * length)).to_bytes(length, order).hex() for value in values})
        return st.sampled_from(digits).map(lambda new: (name, "overwrite", offset, new))

    return st.sampled_from(fields).flatmap(changed)


def xml_edits(path: Path) -> st.SearchStrategy[Edit]:
    """Draw an edit of an attribute or an element of OME-XML."""
    xml = tifffile.tiffcomment(path) or ""
    counts = [len(list(pattern.finditer(xml))) for pattern in (ATTRIBUTE, ELEMENT)]
    value = st.tuples(st.just(path.name), st.just("attribute"), st.integers(0, counts[0] - 1), st.sampled_from(XML))
    times = st.tuples(st.just(path.name), st.just("element"), st.integers(0, counts[1] - 1), st.sampled_from([0, 2]))
    return st.integers(0, 9).flatmap(lambda n: value if n < 8 else times)


def tag_fields(content: bytes) -> list[tuple[int, int]]:
    """Return offset and length of the fields of a TIFF file's header and directories: code, type, count, value."""
    fields, place = [(0, 2), (2, 2), (4, 4)], 4
    while (start := int.from_bytes(content[place : place + 4], "little")) != 0:
        count = int.from_bytes(content[start : start + 2], "little")
        fields.append((start, 2))
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            fields += [(entry, 2), (entry + 2, 2), (entry + 4, 4), (entry + 8, 4)]
        place = start + 2 + 12 * count
        fields.append((place, 4))
    return fields


PIECES = ["{", "}", "{{", "}}", "{name}", "{factor}", "{number}", "{folder}", "{dtype}", "{name:", "{number:03}", "{0}"]
PIECES += ["{name!r}", "{name.real}", "{name[0]}", "{factor:.3f}", "{number:9999}", "{number:{number}}", "{name:{foo}}"]
PIECES += [
    ":",
    "!",
    "!s",
    "a",
    " ",
    ".",
    "/",
    "\\",
    "\n",
    "\x00",
    "µ",
    "😀",
    "9" * 30,
    "x" * 300,
    "..",
    ".ome.zarr",
    "%s",
]
PIECES += [
    "{number:n}",
    "{number:c}",
    "{factor:e}",
    "{name:>20}",
    "{number:,}",
    "{number:+}",
    "{}",
    "CON",
    "~",
    "*",
    "?",
]


def patterns() -> st.SearchStrategy[Edit]:
    """Draw a pattern for names."""
    return st.lists(st.sampled_from(PIECES), max_size=6).map(lambda pieces: ("", "pattern", "".join(pieces)))
