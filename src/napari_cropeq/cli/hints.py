"""Errors as sentences of the command line: what to do is said with its options."""

from __future__ import annotations

from napari_cropeq.errors import CropeqError

__all__ = ["HINTS", "sentence"]

VOXEL_SIZE = "Give the correct voxel size with --voxel-size Z Y X."

HINTS = {
    "voxel_size": VOXEL_SIZE,
    "unknown_voxel_size": VOXEL_SIZE,
    "allow_missing": "Copy it again, or give the value that missing planes are read as with --allow-missing VALUE.",
    "existing": "Choose another name, or replace it with --overwrite.",
    "unfinished": "Complete it with --resume, or start again with --overwrite.",
    "restart": "Choose another name, or start again with --overwrite.",
    "outputs": "Skip complete results with --resume, or replace them with --overwrite.",
    "existing_model": "Choose another name, use it with --resume, or replace it with --overwrite.",
    "model": "Give a model file that cropeq train has saved, ending in .safetensors.",
    "baseline": "Give the model file of a zero-padded network, or train one with --against padded.",
    "names": "Add {number} or {folder} to --name, or export to different folders.",
    "partition": "Correct --shard-id or --num-shards.",
    "space_to_resume": "Make space, then run the same command with --resume.",
    "memory": "Close other programs, or use smaller tiles (--tile), fewer filters (--filters) or another --device.",
}
"""What to do about a setting, in the place of the library's remedy."""

EXHAUSTED = "out of memory", "can't allocate memory"


def sentence(error: BaseException) -> str:
    """Return an error as one line: the problem, and what to do about it."""
    if isinstance(error, CropeqError):
        text = error.sentence(HINTS)
    else:
        text = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or any(words in text.lower() for words in EXHAUSTED):
            text = f"There is not enough memory ({text[:200]}). {HINTS['memory']}"
    return " ".join(text.split())
