"""Files of microscopes, written by their published structure: LIF, IMS and DV."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import mrc
import numpy as np

DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4}


def a_lif(path: Path, images: dict[str, np.ndarray], steps: tuple[float, float, float] = (0.5, 0.1083, 0.1083)) -> Path:
    """Write uint16 images (t, c, z, y, x) by name, with voxels of ``steps`` µm, as LIF of version 2."""
    elements = [_element(number, name, data, steps) for number, (name, data) in enumerate(images.items())]
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="" Visibility="1"><Data><Experiment Path=""/></Data>'
        f"<Children>{''.join(elements)}</Children></Element></LMSDataContainerHeader>"
    )
    with path.open("wb") as file:
        file.write(struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le"))
        for number, data in enumerate(images.values()):
            name = f"MemBlock_{number}"
            head = struct.pack("<IIBQBI", 0x70, 2 * len(name) + 14, 0x2A, data.nbytes, 0x2A, len(name))
            file.write(head + name.encode("utf-16-le") + data.astype("<u2").tobytes())
    return path


def _element(number: int, name: str, data: np.ndarray, steps: Sequence[float]) -> str:
    """Return the XML of an image; channels lie between t and z, so each has the size of a volume."""
    sizes = dict(zip("TCZYX", data.shape, strict=True))
    inc = dict(zip("TCZYX", (int(n) for n in np.cumprod((2, *data.shape[:0:-1]))[::-1]), strict=True))
    step = dict(zip("ZYX", steps, strict=True)) | {"T": 2.0}
    channels = "".join(
        '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
        f'Max="65535" Unit="" LUTName="{lut}" IsLUTInverted="0" BytesInc="{channel * inc["C"]}" BitInc="0"/>'
        for channel, lut in zip(range(sizes["C"]), ("Green", "Red"), strict=False)
    )
    unit = dict.fromkeys("XYZ", ("m", 1e-6)) | {"T": ("s", 1)}
    dimensions = "".join(
        f'<DimensionDescription DimID="{DIMENSIONS[axis]}" NumberOfElements="{sizes[axis]}" Origin="0" '
        f'Length="{step[axis] * (sizes[axis] - 1) * unit[axis][1]}" Unit="{unit[axis][0]}" '
        f'BitInc="0" BytesInc="{inc[axis]}"/>'
        for axis in "XYZT"
        if sizes[axis] > 1
    )
    return (
        f'<Element Name="{name}" Visibility="1" UniqueID="{number}"><Data><Image TextDescription=""><ImageDescription>'
        f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{data.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
    )


def an_ims(path: Path, data: np.ndarray, steps: tuple[float, float, float] = (0.5, 0.1083, 0.1083)) -> Path:
    """Write an image (t, c, z, y, x) of two levels, with voxels of ``steps`` µm, as Imaris does."""
    times, channels, *space = data.shape
    with h5py.File(path, "w") as file:
        _texts(file, ImarisDataSet="ImarisDataSet", ImarisVersion="5.5.0", DataSetDirectoryName="DataSet")
        _texts(file, DataSetInfoDirectoryName="DataSetInfo", ThumbnailDirectoryName="Thumbnail")
        file.attrs["NumberOfDataSets"] = np.array([1], np.uint32)
        image = file.create_group("DataSetInfo/Image")
        _texts(image, Unit="um", **dict(zip("ZYX", space, strict=True)))
        for number, (size, step) in enumerate(zip(space[::-1], steps[::-1], strict=True)):
            _texts(image, **{f"ExtMin{number}": 0, f"ExtMax{number}": size * step})
        for number, (name, color) in enumerate((("DAPI", "0 0 1"), ("GFP", "0 1 0"))[:channels]):
            _texts(file.create_group(f"DataSetInfo/Channel {number}"), Name=name, Color=color)
        points = {f"TimePoint{time + 1}": f"2020-01-01 00:00:{5 * time:02d}.000" for time in range(times)}
        _texts(file.create_group("DataSetInfo/TimeInfo"), DatasetTimePoints=times, **points)
        for level, time, channel in itertools.product(range(2), range(times), range(channels)):
            voxels = data[time, channel, :, :: 2**level, :: 2**level]
            group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}")
            _texts(group, **{f"ImageSize{axis}": size for axis, size in zip("ZYX", voxels.shape, strict=True)})
            beyond = [(0, -size % chunk) for size, chunk in zip(voxels.shape, (4, 16, 16), strict=True)]
            group.create_dataset("Data", data=np.pad(voxels, beyond), chunks=(4, 16, 16), compression="gzip")
    return path


def _texts(group: h5py.Group, **values: object) -> None:
    """Set attributes as Imaris writes them, arrays of single characters."""
    for name, value in values.items():
        group.attrs[name] = np.frombuffer(str(value).encode(), "S1")


def a_dv(path: Path, data: np.ndarray, steps: tuple[float, float, float] = (0.5, 0.125, 0.125)) -> Path:
    """Write an image (c, z, y, x) with voxels of ``steps`` µm as DeltaVision does."""
    mrc.save(data, str(path), zAxisOrder="wz", metadata={"d": steps[::-1]})
    return path
