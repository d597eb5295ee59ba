"""Page with the tables and figures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.evidence.evaluate.evaluation import Evaluation
from napari_cropeq.evidence.evaluate.figures import draw_planes, draw_scores
from napari_cropeq.evidence.evaluate.middle_plane import SIDE, middle_planes
from napari_cropeq.evidence.evaluate.seeds import HEADER, PAIR, spread_rows, summarise
from napari_cropeq.evidence.evaluate.table import NONE, TABLE, budget_of, labels, score_rows
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS
from napari_cropeq.evidence.page import Page
from napari_cropeq.evidence.records import read_records

__all__ = ["PAGE", "conclusions", "cuts", "write_page"]

PAGE = "evaluation.html"
SCORES = {"psnr.png": "psnr", "ssim.png": "ssim"}
SLICES = "slices.png"

SPREAD = (
    "n: volumes with a finished experiment; it may differ between rows if the evaluation is not finished. sd: sample "
    f"standard deviation (divided by n − 1). Over quintic, and {' − '.join(PAIR)}: the spread of the differences on "
    "each volume. Each volume has its own data range, which adds to the spread of PSNR but not to that of differences."
)

Summary = Mapping[str, Sequence[Mapping[str, Any]]]


def write_page(evaluation: Evaluation, command: str, notes: Sequence[str] = ()) -> list[str]:
    """Draw the figures and write ``evaluation.html``; return the names of the files.

    The page is first written without the planes, which may take a while to compute, and then again with them.

    Parameters
    ----------
    evaluation : Evaluation
        Finished or not; nothing is written if no experiment is finished.
    command : str
        The command line.
    notes : sequence of str
        Sentences about the volumes.
    """
    folder, records = evaluation.folder.parent, evaluation.records()
    if not records:
        return []
    for name, measure in SCORES.items():
        draw_scores(records, measure, folder / name)
    _page(evaluation, command, notes, planes=False).write(folder / PAGE)
    truth = next(experiment.truth for experiment in evaluation.experiments if evaluation.record(experiment) is not None)
    draw_planes(list(middle_planes(evaluation, truth)), evaluation.experiments[0].border, folder / SLICES)
    _page(evaluation, command, notes, planes=True).write(folder / PAGE)
    return [*SCORES, SLICES, PAGE]


def conclusions(summary: Summary) -> list[str]:
    """Return a sentence for each factor and network on its gain over quintic interpolation, and for each pair."""
    found = []
    for kind, measure, words in (
        ("methods", "psnr_over_quintic", " over quintic interpolation"),
        ("pairs", "psnr", ""),
    ):
        for entry in summary[kind]:
            gain = entry["spread"].get(measure)
            if gain is None or entry["method"] in INTERPOLATIONS:
                continue
            over = f", mean of {gain['n']} volumes ({gain['min']:+.2f} to {gain['max']:+.2f})" if gain["n"] > 1 else ""
            name = f"{entry['method']}, {budget_of(entry)}"
            found.append(f"Factor {entry['factor']:g}, {name}: {gain['mean']:+.2f} dB{words}{over}.")
    return found


def cuts(evaluation: Evaluation) -> list[str]:
    """Return notices about truths that are not isotropic or not compared completely, each once."""
    notes: list[str] = []
    for experiment in evaluation.experiments:
        whole, reach = experiment.truth.shape[experiment.axis], experiment.compared.shape[experiment.axis]
        if experiment.truth.treatment is not None:
            notes.append(experiment.truth.treatment)
        if reach < whole:
            notes.append(
                f"Factor {experiment.factor:g} does not divide {whole} voxels along {AXIS_NAMES[experiment.axis]}: "
                f"the last {whole - reach} are not compared."
            )
    return list(dict.fromkeys(notes))


def _page(evaluation: Evaluation, command: str, notes: Sequence[str], planes: bool) -> Page:
    folder, records = evaluation.folder.parent, evaluation.records()
    summary = summarise(records, read_records(folder))
    volumes = list({id(experiment.truth): experiment.truth for experiment in evaluation.experiments}.values())
    several = len(volumes) > 1
    page = Page(f"Evaluation of {f'{len(volumes)} volumes' if several else volumes[0].name}")
    page.command(command)
    if len(records) < len(evaluation.experiments):
        page.text(
            f"Not finished: {len(records)} of {len(evaluation.experiments)} experiments are done; run the same command "
            "to compute the others. The numbers below are from the finished ones."
        )
    for sentence in conclusions(summary):
        page.text(sentence)
    for name, measure in SCORES.items():
        page.picture(folder / name, _caption(measure.upper(), several))
    if several:
        page.heading("Spread over volumes")
        page.table(HEADER, spread_rows(summary))
        page.text(SPREAD)
    page.heading("Each volume")
    page.table(TABLE, score_rows(records, read_records(folder)))
    if planes:
        page.heading("The middle plane")
        page.picture(folder / SLICES, _plane_caption(evaluation))
    page.heading("What was measured")
    for note in (*notes, *cuts(evaluation), *_how(evaluation)):
        page.text(note)
    _add_volumes(page, evaluation)
    page.heading("Times and machines")
    _add_times(page, records)
    return page


def _caption(score: str, several: bool) -> str:
    boxes = (
        "Boxes: quartiles and median over volumes, whiskers to the smallest and the largest. Points: single volumes, "
        "each at the same place in every box."
    )
    return f"{score} of each method, over the factor. {boxes if several else 'Points: the volume.'}"


def _plane_caption(evaluation: Evaluation) -> str:
    truth = next(experiment.truth for experiment in evaluation.experiments if evaluation.record(experiment) is not None)
    border = evaluation.experiments[0].border
    return (
        f"{_called(evaluation)[truth.name, truth.checksum]}: the plane in its middle, at most {SIDE} voxels wide and "
        "high: the truth, degraded, and restored by each method, with |error| in one colour scale for all. The "
        f"degraded volume is shown slice by slice. Dotted: the border of {border} voxels that is not scored. PSNRs are "
        "those of the whole volume."
    )


def _how(evaluation: Evaluation) -> list[str]:
    """Return sentences on how the scores were measured."""
    experiment = evaluation.experiments[0]
    width = "of the factor" if experiment.fwhm is None else f"of {experiment.fwhm:g} voxels"
    return [
        f"Along {AXIS_NAMES[experiment.axis]} the truth is blurred by a Gaussian with a full width at half maximum "
        f"{width}, and sampled at the centres of the slices. It is mirrored beyond its edges. Networks are trained on "
        "this degraded volume only, not on the truth.",
        "PSNR and SSIM (scikit-image's; 3D, uniform window of 7 voxels) are computed on the whole volume except a "
        f"border of {experiment.border} voxels on every side. The data range is the largest minus the smallest "
        "intensity of the truth inside this border.",
    ]


def _called(evaluation: Evaluation) -> dict[tuple[str, str], str]:
    truths = {id(experiment.truth): experiment.truth for experiment in evaluation.experiments}.values()
    return labels([{"truth": truth.name, "checksum": truth.checksum} for truth in truths])


def _add_volumes(page: Page, evaluation: Evaluation) -> None:
    called = _called(evaluation)
    ranges: dict[str, dict[str, None]] = {}  # more than one if factors leave out different ends
    for record in evaluation.records():
        ranges.setdefault(record["key"]["checksum"], {})[f"{record['scores']['data_range']:.4g}"] = None
    rows = []
    for truth in {id(experiment.truth): experiment.truth for experiment in evaluation.experiments}.values():
        size = NONE if truth.voxel_size is None else f"{' x '.join(f'{v:g}' for v in truth.voxel_size)} {truth.unit}"
        shape, intensities = " x ".join(map(str, truth.shape)), ", ".join(ranges.get(truth.checksum, {NONE: None}))
        name = called[truth.name, truth.checksum]
        rows.append([name, truth.path or NONE, shape, str(truth.voxels.dtype), size, intensities, truth.checksum])
    page.table(["volume", "file", "voxels (z, y, x)", "dtype", "voxel size", "data range", "checksum"], rows)


def _add_times(page: Page, records: Sequence[Mapping[str, Any]]) -> None:
    """Add the times of each experiment, the load of its machine, and the machines."""
    called, machines, rows = labels(record["key"] for record in records), [], []
    for record in records:
        if record["machine"] not in machines:
            machines.append(record["machine"])
        key, training, inference = record["key"], record["training"], record["inference"]
        rows.append(
            [
                *(called[key["truth"], key["checksum"]], f"{key['factor']:g}", key["method"], budget_of(key)),
                *([NONE] * 3 if training is None else _training(training)),
                *(f"{inference['seconds']:.1f}", inference.get("tiling", NONE)),
                *(_load(record["load"]), str(1 + machines.index(record["machine"]))),
            ]
        )
    header = ["volume", "factor", "method", "budget", "patches", "patches/s", "training (s)", "super-resolution (s)"]
    page.table([*header, "tiles", "load, start to end", "machine"], rows)
    for number, machine in enumerate(machines, 1):
        threads = f"{machine['torch_threads']} torch threads"
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        parts = (machine["processor"], f"{machine['cores']} cores", threads, machine["instruction_set"], machine["gpu"])
        page.text(f"Machine {number}: {', '.join(part for part in parts if part)}; {versions}.")
    page.text(
        "Load: mean number of programs that use or wait for a core, over a minute. If other programs share the cores, "
        "a minute of training has fewer patches."
    )


def _training(training: Mapping[str, Any]) -> list[str]:
    return [str(training["patches"]), f"{training['patches_per_second']:.1f}", f"{training['seconds']:.0f}"]


def _load(load: Mapping[str, Any]) -> str:
    return " to ".join(NONE if at is None else f"{at[0]:.1f}" for at in (load["start"], load["end"]))
