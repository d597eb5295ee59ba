"""Damaged chunks of OME-Zarr images: bytes that change, files that are cut short, emptied, removed or exchanged.

Nothing says which file a chunk belongs to, and an absent one is legal fill value: these are what the files say. Bytes
that change must be noticed where the chunk has a checksum, and a wrong length always.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from hypothesis import strategies as st
from numcodecs import Blosc, Zlib
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from fuzz.edits import Edit
from fuzz.images import SHAPE, voxels
from fuzz.oracle import REFUSED, RIGHT, TOLD, Kind, WrongError, unless_refused
from fuzz.strategies import byte_edits
from napari_cropeq.formats.open import open_image

FILL = 7
FILE = (4, 8, 16)  # voxels of a file


class Chunks(Kind):
    """An image of one level.

    Attributes
    ----------
    checked : bool
        Whether each chunk has a checksum.
    """

    version, checked = 3, False
    options: dict[str, Any] = {"compressors": None}  # noqa: RUF012

    def make(self) -> None:
        """Write the image."""
        self.path = self.folder / "a.ome.zarr"
        group = zarr.open_group(self.path, mode="w", zarr_format=self.version)
        options = {"chunks": FILE, "fill_value": FILL} | self.options
        array = group.create_array("0", shape=SHAPE, dtype="uint16", **options)
        array[:] = voxels()
        ome = {"multiscales": [{"axes": [{"name": axis} for axis in "zyx"], "datasets": [{"path": "0"}]}]}
        group.attrs.update({"ome": ome} if self.version == 3 else ome)
        counts = [n // size for n, size in zip(SHAPE, FILE, strict=True)]
        self.places = {}
        for place in np.ndindex(*counts):
            box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, FILE, strict=True))
            self.places[f"a.ome.zarr/0/{array.metadata.encode_chunk_key(place)}"] = box

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of the files of chunks."""
        names = sorted(self.places)
        sizes = [(self.folder / name).stat().st_size for name in names]
        bytewise = st.one_of([byte_edits(name, range(size)) for name, size in zip(names, sizes, strict=True)])
        depth = 1 if self.version == 2 else 3
        others = ["/".join([*[".."] * (depth - 1), *name.split("/")[-depth:]]) for name in names]
        moved = st.tuples(st.sampled_from(names), st.just("exchange"), st.sampled_from(others))
        gone = st.tuples(st.sampled_from(names), st.just("delete"))
        return st.integers(0, 9).flatmap(lambda n: bytewise if n < 8 else moved if n == 8 else gone)

    def judge(self, edits: list[Edit]) -> str:
        """Compare each chunk with what its file may contain."""
        found = unless_refused(lambda: np.asarray(open_image(self.path).data))
        if found is None:
            return REFUSED
        right, outcome = voxels(), RIGHT
        if found.shape != right.shape or found.dtype != right.dtype:
            raise WrongError(f"{found.shape} {found.dtype}")
        for name, content in self._contents(edits).items():
            box = found[self.places[name]]
            if content is None:
                expected = np.full_like(box, FILL)
            else:
                expected = right[self.places[content[0]]]
            if not np.array_equal(box, expected):
                if content is None or not content[1] or self.checked:
                    raise WrongError(f"other voxels in {name}: {math.prod(box.shape)} of {content}")
                outcome = TOLD
            elif content is None or content[0] != name:
                outcome = TOLD
        return outcome

    def _contents(self, edits: list[Edit]) -> dict[str, tuple[str, bool] | None]:
        """Return whose content each file has, and whether its bytes were changed; None for a removed file."""
        contents: dict[str, tuple[str, bool] | None] = {name: (name, False) for name in self.places}
        cut = set()
        for name, operation, *rest in edits:
            content = contents[name]
            if operation == "delete":
                contents[name] = None
            elif operation == "exchange":
                parts = name.split("/")
                above = rest[0].count("..") + 1
                other = "/".join([*parts[:-above], *rest[0].split("/")[above - 1 :]])
                if content is not None and contents[other] is not None:
                    contents[name], contents[other] = contents[other], content
            elif content is not None and (operation == "overwrite" or (operation == "append" and name in cut)):
                contents[name] = (content[0], True)  # bytes that are added in the place of others change them
            elif operation == "cut":
                cut.add(name)
        return contents


class Blosc2Chunks(Chunks):
    """Zarr 2 with Blosc, as most of it is."""

    version, options = 2, {"compressors": Blosc(cname="lz4")}


class Zlib2Chunks(Chunks):
    """Zarr 2 with zlib, which has a checksum."""

    version, checked, options = 2, True, {"compressors": Zlib()}


class GzipChunks(Chunks):
    """Zarr 3 with gzip, which has a checksum."""

    checked, options = True, {"compressors": GzipCodec()}


class ZstdChunks(Chunks):
    """Zarr 3 with Zstandard."""

    options = {"compressors": ZstdCodec()}  # noqa: RUF012


class BloscChunks(Chunks):
    """Zarr 3 with Blosc."""

    options = {"compressors": BloscCodec(cname="zstd")}  # noqa: RUF012


class OurChunks(Chunks):
    """Zarr 3 as this package writes it."""

    checked = True
    options = {  # noqa: RUF012
        "chunks": (2, 8, 8),
        "shards": FILE,
        "compressors": [BloscCodec(cname="zstd"), Crc32cCodec()],
    }
