"""Everything that decides the bits of a result, so that two runs may fill one store only where they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from napari_cropeq.volume.superres import SuperResolution

__all__ = ["check_same", "differences", "fingerprint_of"]


def fingerprint_of(result: SuperResolution, tiles: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the bits of ``result``, as JSON values under the names a user knows.

    Parameters
    ----------
    result : SuperResolution
        Source, model and device.
    tiles : mapping
        Sizes of shards, chunks and levels.
    """
    source, acquisition = result.source, result.acquisition
    return {
        "model": result.model.fingerprint,
        "source": {
            "axes": source.axes,
            "shape": [int(n) for n in source.data.shape],
            "dtype": str(source.data.dtype),
            "voxels": result.sample_digest,
        },
        "geometry": {
            "voxel size": list(acquisition.voxel_size),
            "axial axis": "zyx"[acquisition.axial],
            "unit": acquisition.unit,
            "translate": list(source.translate),
        },
        "normalisation": [[n.low, n.high] for n in result.normalisations],
        "planes": ["zyx"[p] for p in result.planes],
        "type": str(result.dtype),
        "tile grid": dict(tiles),
        "device": result.exactness.device,
        "exactness": str(result.exactness),
        # Equal bits hold among processors of the same instruction set, and for one version of torch, not beyond.
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


def check_same(begun: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Raise unless two fingerprints are equal.

    Raises
    ------
    ValueError
        With what differs, in the words of the fingerprint.
    """
    found = list(differences(begun, now))
    if found:
        raise ValueError(
            f"Got {name}, which was begun with another {'; another '.join(found)}: go on with what it was begun with, "
            "or start it anew (--overwrite)."
        )


def differences(begun: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield what differs between two fingerprints, in words: its name, what it was and what it is now."""
    for key in dict.fromkeys([*begun, *now]):
        old, new = begun.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{where}{key}: ")
        elif old != new:
            yield f"{where}{key} ({old}, now {new})"
