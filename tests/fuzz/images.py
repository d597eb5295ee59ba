"""Damaged images: metadata of OME-Zarr, directories and OME-XML of TIFF files, headers of NIfTI files.

Right are the voxels of the undamaged image. A field without a checksum may also have been changed to another value that
is possible, such as another voxel type of the same size: then the voxels must be those that another reader, which
refuses what is contradictory, finds in the damaged file.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tensorstore
import tifffile
import zarr
from hypothesis import strategies as st

from fuzz import other_readers
from fuzz.edits import Edit
from fuzz.oracle import REFUSED, RIGHT, TOLD, Kind, Seen, WrongError, in_any, same, seen, unless_refused
from fuzz.strategies import byte_edits, field_edits, json_edits, tag_fields, xml_edits
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image

SHAPE = (8, 16, 16)
SIZE = (4.0, 1.0, 0.5)  # (z, y, x) µm
METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def voxels() -> np.ndarray:
    """Return uint16 voxels (z, y, x)."""
    return np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)


class ImageKind(Kind):
    """An image file or folder."""

    name = ""

    @property
    def path(self) -> Path:
        """The image."""
        return self.folder / self.name

    def write(self) -> None:
        """Write the image."""
        raise NotImplementedError

    def make(self) -> None:
        """Write the image, and keep its voxels."""
        self.write()
        image = open_image(self.path)
        self.right = [seen(level) for level in image.levels]
        self.size = (image.voxel_size, image.unit)
        assert self.right[0][1].dtype != np.uint16 or np.array_equal(self.right[0][1], voxels())

    def told(self, image: Image, level: int) -> Iterable[Seen]:
        """Yield what the damaged file says, as another reader finds it."""
        raise NotImplementedError

    def may_state_size(self, edits: list[Edit]) -> bool:
        """Return whether edits may have stated another voxel size."""
        return True

    def judge(self, edits: list[Edit]) -> str:
        """Open the image, and compare all levels that can be read."""
        image = unless_refused(lambda: open_image(self.path))
        if image is None:
            return REFUSED
        json.dumps(image.describe()), repr(image), image.image
        if (image.voxel_size, image.unit) not in (self.size, (None, "pixel")) and not self.may_state_size(edits):
            raise WrongError(f"voxel size {image.voxel_size} {image.unit}")
        outcomes = [self._level(image, number) for number in range(len(image.levels))]
        return outcomes[0]

    def _level(self, image: Image, number: int) -> str:
        found = unless_refused(lambda: seen(image.levels[number]))
        if found is None:
            return REFUSED
        if number < len(self.right) and same(found, self.right[number]):
            return RIGHT
        if in_any(found, self.told(image, number)):
            return TOLD
        raise WrongError(f"other voxels in level {number}: {found[0]} {found[1].dtype}")


class Zarr(ImageKind):
    """The metadata of an OME-Zarr image."""

    name, version, options = "a.ome.zarr", 3, {}

    def write(self) -> None:
        """Write two levels."""
        group = zarr.open_group(self.path, mode="w", zarr_format=self.version)
        for number, data in enumerate((voxels(), voxels()[:, ::2, ::2])):
            chunks = self.options | {"chunks": (4, 8, 8)}
            group.create_array(str(number), shape=data.shape, dtype=data.dtype, **chunks)[:] = data
        units = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
        datasets = [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [SIZE[0], *(2**number * side for side in SIZE[1:])]},
                    {"type": "translation", "translation": [1.0, 2.0, 3.0]},
                ],
            }
            for number in (0, 1)
        ]
        channels = {"channels": [{"label": "a", "color": "00FF00", "active": True}]}
        ome = {"multiscales": [{"axes": units, "datasets": datasets, "name": "a"}], "omero": channels}
        group.attrs.update({"ome": {"version": "0.5"} | ome} if self.version == 3 else ome)

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of all metadata."""
        files = [path for path in self.path.rglob("*") if path.name in METADATA]
        return json_edits(self.folder, sorted(str(path.relative_to(self.folder)) for path in files))

    def may_state_size(self, edits: list[Edit]) -> bool:
        """Return whether an edit has done more than to remove values: without the finest level, the next one counts."""
        return any(operation != "take" or rest[0][-2:-1] == ["datasets"] for _, operation, *rest in edits)

    def told(self, image: Image, level: int) -> Iterable[Seen]:
        """Yield the voxels at the path of a level as they were, and as tensorstore finds them; all orders of axes."""
        try:
            path = self.path / ("zarr.json" if self.version == 3 else ".zattrs")
            attributes = json.loads(path.read_text())
            attributes = attributes["attributes"] if self.version == 3 else attributes
            ome = attributes.get("ome")
            multiscale = (ome if isinstance(ome, dict) else attributes)["multiscales"][0]
            axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscale["axes"]]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return
        for dataset in multiscale["datasets"][level:]:
            found = self._read(dataset)
            if dataset["path"] in ("0", "1"):
                yield self.right[int(dataset["path"])]
            if found is not None:
                shape, box = found
                orders = itertools.permutations(range(len(shape))) if axes != [*"zyx"] else [range(len(shape))]
                for order in orders:
                    yield tuple(shape[axis] for axis in order), box.transpose(*order)

    def _read(self, dataset: Any) -> Seen | None:
        kvstore = {"driver": "file", "path": f"{self.path}/{dataset['path']}/"}
        spec = {"driver": "zarr3" if self.version == 3 else "zarr", "kvstore": kvstore}
        try:
            array = tensorstore.open(spec, open=True, read=True).result()
            large = math.prod(array.shape) > 2**24
            box = array[tuple(slice(0, min(n, 20)) for n in array.shape)] if large else array
            return tuple(array.shape), np.asarray(box.read().result())
        except (ValueError, TypeError, KeyError, IndexError, OSError, NotImplementedError):
            return None


class ShardedZarr(Zarr):
    """The metadata of an OME-Zarr image in shards."""

    options = {"shards": (8, 8, 16)}  # noqa: RUF012


class Zarr2(Zarr):
    """The metadata of an OME-Zarr 0.4 image."""

    version = 2


class Tiff(ImageKind):
    """The header and directories of a TIFF file, and all of its bytes."""

    name, options = "a.tif", {}

    def write(self) -> None:
        """Write a stack of pages."""
        with tifffile.TiffWriter(self.path) as writer:
            for plane in voxels():
                writer.write(plane, contiguous=False, photometric="minisblack", metadata=None, **self.options)

    @property
    def undamaged(self) -> bytes:
        """The bytes of the file."""
        return self.files[self.path]

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of fields, and of any byte."""
        content = self.undamaged
        fields = field_edits(self.name, tag_fields(content), content)
        anywhere = byte_edits(self.name, range(len(content)))
        return st.integers(0, 9).flatmap(lambda n: fields if n < 7 else anywhere)

    def judge(self, edits: list[Edit]) -> str:
        """Keep the edits of voxels, and judge."""
        fields = {place for offset, length in tag_fields(self.undamaged) for place in range(offset, offset + length)}
        content = bytearray(self.undamaged)
        for _, _, place, digits in (edit for edit in edits if edit[1] == "overwrite"):
            new = bytes.fromhex(digits)
            if not fields & set(range(place, place + len(new))):
                content[place : place + len(new)] = new
        self._old = bytes(content)
        return super().judge(edits)

    def old_pages(self) -> list[np.ndarray | None]:
        """Return the pages of the file before its fields were damaged."""
        return other_readers.tiff_pages(self._old)

    def told(self, image: Image, level: int) -> Iterable[Seen]:
        """Yield the planes if each is as another reader finds it, or as it was; only other images may be left out."""
        pages = other_readers.tiff_pages(self.path.read_bytes())
        shape, found = seen(image.levels[level])
        planes = found if len(shape) == 3 else found[:0]
        told = [
            any(same(seen(plane), seen(other)) for other in (page, old) if other is not None)
            for plane, page, old in zip(planes, pages, self.old_pages(), strict=False)
        ]
        # A compressed page with a damaged size looks like another image.
        packed = "compression" in self.options
        left_out = [packed if page is None else page.shape != shape[1:] for page in pages[len(told) :]]
        if told and len(told) == len(planes) and all(told) and all(left_out):
            yield shape, found


class PackedTiff(Tiff):
    """A TIFF file with compressed pages."""

    options = {"compression": "zlib", "predictor": True}  # noqa: RUF012


class OmeTiff(Tiff):
    """An OME-TIFF."""

    name = "a.ome.tif"

    def write(self) -> None:
        """Write an OME-TIFF with most of what OME-XML may have."""
        metadata = {"axes": "ZYX", "TimeIncrement": 1.0, "Channel": {"Name": "a", "Color": 7}, "Plane": {}}
        for axis, side in zip("ZYX", SIZE, strict=True):
            metadata |= {f"PhysicalSize{axis}": side, f"PhysicalSize{axis}Unit": "µm"}
            metadata["Plane"] |= {f"Position{axis}": [1.0] * 8, f"Position{axis}Unit": ["µm"] * 8}
        tifffile.imwrite(self.path, voxels(), metadata=metadata, photometric="minisblack", **self.options)

    def told(self, image: Image, level: int) -> Iterable[Seen]:
        """Yield the pages, and those that OME-XML chooses from them in any order: no other plane may appear."""
        yield from super().told(image, level)
        pages = other_readers.tiff_pages(self.path.read_bytes())
        every = [page for page in [*pages, *self.old_pages()] if page is not None]
        planes = {(page.shape, page.dtype, page.tobytes()) for page in every}
        shape, found = seen(image.levels[level])
        found = found.reshape(-1, *shape[-2:]) if math.prod(shape) == found.size else found[:0]
        if len(found) and all((plane.shape, plane.dtype, plane.tobytes()) in planes for plane in found):
            yield seen(image.levels[level])


class OmeXml(OmeTiff):
    """The OME-XML of an OME-TIFF."""

    options = {"compression": "zlib"}  # noqa: RUF012

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of attributes and elements."""
        return xml_edits(self.path)


class Nifti(ImageKind):
    """The header of a NIfTI file."""

    name, scaled = "a.nii", False

    def write(self) -> None:
        """Write a volume."""
        image = nibabel.Nifti1Image(voxels().T, np.diag([*SIZE[::-1], 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        if self.scaled:
            image.header.set_slope_inter(0.5, 3)
        nibabel.save(image, self.path)

    def edits(self) -> st.SearchStrategy[Edit]:
        """Draw edits of fields, of bytes of the header, and of bytes of a compressed file."""
        places = nibabel.Nifti1Header.template_dtype
        fields = []
        for name in places.names:
            kind, offset = places.fields[name][:2]
            count = math.prod(kind.shape)
            step = kind.base.itemsize
            if kind.base.kind != "S":
                fields += [(offset + step * number, step) for number in range(count)]
        header = nibabel.load(self.path).header.binaryblock
        by_field, by_byte = field_edits(self.name, fields, header), byte_edits(self.name, range(352))
        if self.name.endswith(".gz"):
            by_byte |= byte_edits(self.name, range(self.path.stat().st_size), "overwrite packed")
        return st.integers(0, 9).flatmap(lambda n: by_field if n < 7 else by_byte)

    def told(self, image: Image, level: int) -> Iterable[Seen]:
        """Yield the voxels of the shape and type in the header."""
        found = other_readers.nifti_voxels(self.path.read_bytes())
        if found is not None:
            yield found.shape, found


class PackedNifti(Nifti):
    """The header of a compressed NIfTI file, and all of its bytes."""

    name = "a.nii.gz"


class ScaledNifti(Nifti):
    """The header of a NIfTI file with a slope."""

    scaled = True
