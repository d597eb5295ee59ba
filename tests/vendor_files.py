"""Files of microscopes, written as their formats are known: LIF, ND2, IMS and DV."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import mrc
import numpy as np

DIMENSIONS = {"X": 1, "Y": 2, "Z": 3, "T": 4}
CHUNK = struct.Struct("<IIQ")  # head of a part of an ND2 file: mark, length of its name, length of its content
MARK, NAME = 0x0ABECEDA, 4072


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


def a_nd2(path: Path, data: np.ndarray, steps: tuple[float, float, float] = (0.5, 0.1083, 0.1083)) -> Path:
    """Write a uint16 image (t, c, z, y, x) with voxels of ``steps`` µm as ND2 of version 3."""
    times, channels, slices, rows, columns = data.shape
    size = {"uiWidth": columns, "uiHeight": rows, "uiWidthBytes": columns * channels * 2, "uiComp": channels}
    bits = {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": times * slices, "eCompression": 2}
    spectrum = {"uiCount": 1, "pPoint": {"Point0": {"eType": 1, "dWavelength": 500.0, "dTValue": 1.0}}}
    probe = {"m_ExcitationSpectrum": spectrum, "m_EmissionSpectrum": spectrum}
    planes = {
        f"a{number}": {"sDescription": name, "uiCompCount": 1, "uiColor": color, "pFluorescentProbe": probe}
        for number, (name, color) in enumerate((("DAPI", 0xFF0000), ("GFP", 0x00FF00))[:channels])  # blue, green
    }
    picture = {
        "bCalibrated": True,
        "dCalibration": steps[2],
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
    }
    depth = {"uiCount": slices, "dZLow": 0.0, "dZHigh": steps[0] * (slices - 1), "dZStep": steps[0]}
    period = {"uiCount": times, "dStart": 0.0, "dPeriod": 2500.0, "dDuration": 2500.0 * times}
    period |= {f"d{which}PeriodDiff": 2500.0 for which in ("Min", "Max", "Avg")}
    loops = {"eType": 1, "uLoopPars": period, "ppNextLevelEx": {"": {"eType": 4, "uLoopPars": depth}}}
    frames = data.transpose(0, 2, 3, 4, 1).astype("<u2").reshape(times * slices, -1)
    parts = {b"ImageAttributesLV!": _lite("SLxImageAttributes", size | bits)}
    parts |= {f"ImageDataSeq|{n}!".encode(): bytes(8) + frame.tobytes() for n, frame in enumerate(frames)}
    parts |= {b"ImageMetadataSeqLV|0!": _lite("SLxPictureMetadata", picture)}
    parts |= {b"ImageMetadataLV!": _lite("SLxExperiment", loops)}
    parts |= {b"CustomData|AcqTimesCache!": np.arange(times * slices, dtype="<f8").tobytes()}
    with path.open("wb") as file:
        file.write(CHUNK.pack(MARK, 32, 64) + b"ND2 FILE SIGNATURE CHUNK NAME01!" + b"Ver3.0".ljust(64, b"\0"))
        listed = b""
        for name, content in parts.items():
            file.seek(-file.tell() % 4096, 1)
            listed += name + struct.pack("<QQ", file.tell(), len(content))
            file.write(CHUNK.pack(MARK, NAME, len(content)) + name.ljust(NAME, b"\0") + content)
        file.seek(-file.tell() % 4096, 1)
        listed += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", file.tell())
        name = b"ND2 FILEMAP SIGNATURE NAME 0001!"
        file.write(CHUNK.pack(MARK, NAME, len(listed)) + name.ljust(NAME, b"\0") + listed)
    return path


def _lite(name: str, value: object) -> bytes:
    """Return a value with its name as in the metadata of ND2."""
    kinds = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d"), str: (8, ""), dict: (11, "")}
    kind, form = kinds[type(value)]
    head = struct.pack("BB", kind, len(name) + 1) + f"{name}\0".encode("utf-16-le")
    if isinstance(value, dict):
        inside = b"".join(_lite(key, item) for key, item in value.items())
        return head + struct.pack("<IQ", len(value), len(head) + 12 + len(inside)) + inside + bytes(8 * len(value))
    return head + (f"{value}\0".encode("utf-16-le") if isinstance(value, str) else struct.pack(form, value))


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
