"""What to do about an error, in terms of the window's own controls."""

from __future__ import annotations

import dataclasses

from napari_cropeq.core.training.config import TrainingConfig

__all__ = ["BATCH_HINTS", "HINTS", "TRAIN_HINTS", "VERIFY_HINTS", "in_words"]

PREFERENCES = "File > Preferences > cropeq super-resolution"


def in_words(name: str) -> str:
    """Return the name of a setting as its label shows it."""
    return name.replace("_", " ").capitalize()


def _of_training(name: str) -> str:
    return f"Change {in_words(name)} under Advanced options in Train."


HINTS: dict[str, str] = {field.name: _of_training(field.name) for field in dataclasses.fields(TrainingConfig)} | {
    "voxel_size": "Set the correct Voxel size under Data.",
    "allow_missing": "Open it with File > Open, which asks for a value that missing planes are read as.",
    "scene": "Open it with File > Open, which asks which image to open.",
    "axes": "Choose its Axes under Data, which moves them.",
    "axial": "Choose another Axial axis under Data, or another image.",
    "fwhm": "Correct FWHM under Data.",
    "lateral_fwhm": "Correct Lateral FWHM in the section Slice profile under Data.",
    "channels": "Choose other Channels under Data.",
    "time": "Choose other Time points under Data.",
    "preset": "Choose another Preset in Train.",
    "minutes": "Change Budget in Train.",
    "patches": "Change Budget in Train.",
    "filters": "Change Filters under Advanced options in Train; fewer filters need less memory.",
    "rate": "Change Rate under Advanced options in Train; training is more stable with a lower one.",
    "start": "Use the model's own settings under Advanced options in Train, or press Start there.",
    "device": f"Choose another Device in Train or in {PREFERENCES}.",
    "model": "Train a model, or load another one, in Train.",
    "planes": "Choose other Planes.",
    "dtype": "Choose another Type.",
    "tile": "Choose another Tile size.",
    "memory": f"Close other images and programs, lower Memory for tiles in {PREFERENCES}, or train with fewer Filters.",
    "memory_limit": f"Choose a Destination in Volume, or raise Memory for tiles in {PREFERENCES}.",
    "existing": "Choose another Destination, or check Overwrite.",
    "unfinished": "Press Resume to complete it, or check Overwrite to start again.",
    "restart": "Check Overwrite to start again, or use the settings that it was started with.",
}
"""The sentence that replaces an error's remedy, by the error's setting."""

TRAIN_HINTS = HINTS | {
    "memory": "Close other images and programs, or choose a smaller Patch or fewer Filters under Advanced options.",
    "model": "Choose another Model file.",
    "existing": "Choose another Model file.",
    "unfinished": "Press Resume to complete it, or Start to train from the beginning.",
    "restart": "Press Start to train from the beginning.",
}

BATCH_HINTS = HINTS | {
    "voxel_size": "Open the image, set Voxel size under Data, and choose the selected layers as Images.",
    "unknown_voxel_size": "Enter Voxel size, which is used for files that store none.",
    "allow_missing": "Open the image, which asks for a value, and choose the selected layers as Images.",
    "scene": "Open the file, which asks which image to open, and choose the selected layers as Images.",
    "minutes": "Change Minutes.",
    "filters": "Train a model with fewer Filters in Train.",
    "model": "Train or load another model in Train, or choose to train on each image.",
    "names": "Add {number} or {folder} to Names.",
    "existing": "Choose another Destination, or under Existing choose resume to skip it or overwrite to replace it.",
    "outputs": "Under Existing, choose resume to skip complete results or overwrite to replace them.",
    "existing_model": "Under Existing, choose resume to use it or overwrite to train again.",
    "unfinished": "Under Existing, choose resume to complete it or overwrite to start again.",
    "restart": "Under Existing, choose overwrite to start again, or use the settings that it was started with.",
}

PADDED = "Choose another Padded model, or leave it empty to train one."
VERIFY_HINTS = HINTS | {"minutes": "Change Training (min).", "model": PADDED, "baseline": PADDED}
