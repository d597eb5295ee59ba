"""``cropeq info``: what an image, a result or a model contains, and the networks side by side."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from napari_cropeq.cli.hints import sentence
from napari_cropeq.cli.options import add_command, add_device, add_opening, image_path
from napari_cropeq.cli.progress import progress_bar
from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.short_repr import card, duration, quality_of

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model
    from napari_cropeq.formats.image import Image

__all__ = ["add_info"]

MODEL, CHECKPOINT = ".safetensors", ".checkpoint.safetensors"


def add_info(commands: Any) -> None:
    """Add ``info`` to the subparsers ``commands``."""
    examples = ["cropeq info stack.ome.tif", "cropeq info stack.safetensors --json"]
    summary = "show what an image, a result or a model contains"
    parser = add_command(commands, "info", summary, examples, _info)
    parser.add_argument("path", type=image_path, nargs="?", metavar="FILE", help="an image, a result, or a model")
    parser.add_argument(
        "--networks", action="store_true", help="instead, compare the layers, work and speed of all networks here"
    )
    parser.add_argument(
        "--filters", type=int, default=32, metavar="N", help="with --networks: number of filters (default 32)"
    )
    parser.add_argument(
        "--factor", type=float, default=4.0, metavar="F", help="with --networks: factor of the images (default 4)"
    )
    add_opening(parser)
    add_device(parser)


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.networks == (arguments.path is not None):
        raise ArgumentError(
            "There is neither a file nor --networks." if arguments.path is None else "A file and --networks are given.",
            "Give one of them.",
        )
    if arguments.networks:
        return _networks(arguments)
    if str(arguments.path).endswith(MODEL):
        report, text = _model(arguments.path)
    else:
        report, text = _image(arguments.path, arguments.allow_missing, arguments.scene)
    if not arguments.json:
        print(text)
    return report


def _networks(arguments: argparse.Namespace) -> dict[str, Any]:
    from napari_cropeq.core.network import NETWORKS
    from napari_cropeq.evidence.evaluate.table import markdown
    from napari_cropeq.evidence.machine import describe_machine
    from napari_cropeq.evidence.network_table import HEADER, cells, network_facts

    facts, machine = [], describe_machine()
    with progress_bar() as update:
        for number, fact in enumerate(network_facts(arguments.filters, arguments.factor, arguments.device), 1):
            facts.append(fact)
            update(f"measured {fact.network}", number / len(NETWORKS), "")
    if not arguments.json:
        print(markdown(HEADER, [cells(fact) for fact in facts]), end="")
        settings = f"{arguments.filters} filters, factor {arguments.factor:g}"
        print(f"{settings}; {machine['processor']}, {machine['cores']} cores")
    return {"networks": [fact.as_json() for fact in facts], "machine": machine}


def _image(path: Path | str, allow_missing: float | None, scene: str | None) -> tuple[dict[str, Any], str]:
    """Return the record and the card of an image: a source, a result of ours, or a result that is not complete."""
    from napari_cropeq.formats.open import label_of, open_image
    from napari_cropeq.formats.paths import partial_of
    from napari_cropeq.formats.provenance import read_provenance
    from napari_cropeq.store.unfinished import Unfinished

    folder = path if isinstance(path, str) or path.exists() else partial_of(path)
    unfinished = Unfinished.open(folder) if isinstance(folder, Path) and folder.is_dir() else None
    try:
        image = open_image(path if unfinished is None else folder, allow_missing, scene)
    except ImageError as error:
        if scene is not None or error.setting != "scene":
            raise
        return _plate(path, error)
    report, facts = image.describe(), _facts(image)
    if unfinished is not None:
        source = unfinished.source
        report["unfinished"] = {
            "output": str(unfinished.output),
            "source": source,
            "fraction": unfinished.fraction,
        }
        facts |= {
            "computed": f"{unfinished.fraction:.0%} of the tiles",
            "from": _source(source),
            "next": f"cropeq export {source.get('path') or 'IMAGE'} -m MODEL -o {unfinished.output} --resume",
        }
        return report, card(f"{folder.name}: unfinished result of napari-cropeq", facts)
    more, outlook = _outlook(image, path)
    name, made = label_of(path), read_provenance(path)
    if made is not None:
        what = "expected errors of a result" if "quantity" in made else "result"
        return report | more | {"result": made}, card(f"{name}: {what} of napari-cropeq", facts | _origin(made))
    return report | more, card(f"{name}: image", facts | outlook)


def _plate(path: Path | str, error: ImageError) -> tuple[dict[str, Any], str]:
    """Return the record and the card of a plate, or of another file of which an image has to be chosen."""
    from napari_cropeq.formats.find import find_images
    from napari_cropeq.formats.metadata import named

    fields = [str(image)[len(str(path)) :].strip("/\\") for image in find_images([path])]
    if len(fields) < 2:
        raise error
    next_step = f"cropeq info {path} --scene {fields[0]}"
    facts = {"images": f"{len(fields)} ({named(fields)}); choose one with --scene", "next": next_step}
    return {"path": str(path), "images": fields}, card(f"{path}: {error.problem}", facts)


def _facts(image: Image) -> dict[str, str]:
    from napari_cropeq.formats.metadata import named

    sizes = " × ".join(f"{axis} {length}" for axis, length in zip(image.axes, image.data.shape, strict=True))
    facts = {"shape": f"{sizes}, {image.data.dtype}, {decimal(image.data.nbytes)}"}
    facts["voxel size"] = _size(image.voxel_size, image.unit) if image.voxel_size else "not in the file"
    if image.n_channels > 1 or image.channel_names:
        facts["channels"] = ", ".join(image.channel_names) or str(image.n_channels)
    if image.coarser:
        facts["levels"] = str(len(image.levels))
    if image.scenes:
        facts["images"] = f"{len(image.scenes)} ({named(image.scenes)}); choose one with --scene"
    return facts


def _outlook(image: Image, path: Path | str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what super-resolution would make of an image, as JSON values and as facts."""
    from napari_cropeq.formats.image import acquisition_of
    from napari_cropeq.formats.open import label_of

    scene = f" --scene {shlex.quote(image.scene)}" if image.scene else ""
    whole = image.path or str(path)
    given = path if label_of(whole) == label_of(path) else whole  # an image in a Zarr group has a path of its own
    train = f"cropeq train {given} -o {image.name}{MODEL}{scene}"
    try:
        acquisition = acquisition_of(image)
    except ValueError as error:
        if image.voxel_size is None:
            return {"factor": None, "note": str(error)}, {"next": f"{train} --voxel-size Z Y X"}
        return {"factor": None, "note": str(error)}, {"super-resolved": f"no. {sentence(error)}"}
    shape = acquisition.sr_shape(image.data.shape[-3:])
    axial = "zyx"[acquisition.axial]
    nbytes = math.prod((*image.data.shape[:-3], *shape)) * image.data.dtype.itemsize
    return {"axial": axial, "factor": round(acquisition.factor, 6), "sr_shape": list(shape)}, {
        "low resolution": f"along {axial}: the step is {acquisition.factor:.4g} times the lateral one",
        "super-resolved": f"{' × '.join(map(str, shape))} voxels (z, y, x), {decimal(nbytes)}",
        "next": train,
    }


def _origin(made: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of how a result was made; keys that its version did not write are left out."""
    facts = {"made from": _source(made.get("source", {}))}
    facts["model"] = f"{made.get('model')}, trained on {_spent(made.get('training') or {})}"
    if "factor" in made:
        planes = " and ".join(f"{made.get('axial')}{lateral}" for lateral in made.get("planes", ()))
        facts["method"] = f"factor {made['factor']:.4g} along {made.get('axial')}, {planes} planes"
    if "exactness" in made:
        facts["exactness"] = str(made["exactness"])
    version = (made.get("provenance") or {}).get("versions", {}).get("napari-cropeq")
    return facts | ({} if version is None else {"version": f"model of napari-cropeq {version}"})


def _model(path: Path) -> tuple[dict[str, Any], str]:
    from dataclasses import asdict

    from napari_cropeq.core.model import Model

    model = Model.load(path)
    network = model.network
    report = {
        "network": {
            "kind": network.kind,
            "filters": network.filters,
            "layers": network.layers,
            "receptive_field": network.receptive_field,
            "parameters": sum(p.numel() for p in network.parameters()),
        },
        "factor": model.acquisition.factor,
        "acquisition": asdict(model.acquisition),
        "normalisations": [asdict(n) for n in model.normalisations],
        "training": dict(model.training),
        "provenance": dict(model.provenance),
        "fingerprint": model.fingerprint,
        "expected error": None
        if model.error_tail is None
        else {str(k): v for k, v in model.error_tail.intervals.items()},
    }
    return report, _model_card(path, model)


def _model_card(path: Path, model: Model) -> str:
    acquisition, network, source = model.acquisition, model.network, model.provenance.get("source", {})
    losses = [loss for *_, loss in model.training.get("losses", ())]
    facts = {
        "network": f"{network.kind}, {network.filters} filters, {network.blocks} blocks, {network.layers} layers",
        "factor": f"{acquisition.factor:.4g} along {'zyx'[acquisition.axial]}",
        "voxel size": _size(acquisition.voxel_size, acquisition.unit),
        "trained on": _source(source) if source else "not recorded",
        "training": _spent(model.training),
    }
    facts |= quality_of(model.training) | _noise(model)
    facts["expected error"] = _expected(model)
    if losses:
        facts["validation"] = f"lowest loss {min(losses):.4g}"
    version = model.provenance.get("versions", {}).get("napari-cropeq")
    if version:
        facts["version"] = f"napari-cropeq {version}"
    facts["fingerprint"] = model.fingerprint
    image = source.get("path") or "IMAGE"
    if path.name.endswith(CHECKPOINT):
        final = path.with_name(path.name.removesuffix(CHECKPOINT) + MODEL)
        facts["next"] = f"cropeq train {image} -o {final} --resume"
        return card(f"{path.name}: training that was interrupted", facts)
    facts["next"] = f"cropeq export {image} -m {path} -o {source.get('name') or 'result'}_SR.ome.zarr"
    return card(f"{path.name}: model", facts)


def _expected(model: Model) -> str:
    """Return what a model tells about the errors of its results."""
    if model.error_tail is None:
        return "none: made by an earlier version, or trained on few patches"
    within = ", ".join(f"{100 * level:g} % within {width:.2g} ×" for level, width in model.error_tail.intervals.items())
    return f"learnt; of errors on lateral slices, {within}"


def _noise(model: Model) -> dict[str, str]:
    """Return the noise of each channel; nothing if it was not measured, or not recorded by an earlier version."""
    from napari_cropeq.core.training.noise import recorded_noise

    found = recorded_noise(model.training, model.normalisations)
    several = len(found) > 1
    return {
        f"noise, {number} of {len(found)}" if several else "noise": f"{noise.text} {noise.doubt}".strip()
        for number, noise in enumerate(found, 1)
    }


def _spent(training: Mapping[str, Any]) -> str:
    patches, seconds = training.get("patches"), float(training.get("seconds") or 0)
    return "not recorded" if patches is None else f"{patches:,} patches in {duration(seconds)}"


def _source(source: Mapping[str, Any]) -> str:
    shape = " × ".join(str(length) for length in source.get("shape", ()))
    size = source.get("voxel_size")
    parts = [source.get("path") or source.get("name"), shape, source.get("dtype")]
    parts.append(_size(size, source.get("unit", "")) if size else None)
    return ", ".join(str(part) for part in parts if part) or "not recorded"


def _size(size: Sequence[float], unit: str) -> str:
    from napari_cropeq.formats.ome_tiff import UNITS

    return f"{' × '.join(f'{step:.4g}' for step in size)} {UNITS.get(unit, unit)} (z, y, x)"
