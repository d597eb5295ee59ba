"""Quality against time: interpolations, the training of version 0.1.0 and the zero-padded baseline, on real volumes.

Each experiment is saved when it finishes, and the report in ``benchmarks/results`` is written again after it. A
stopped run continues with the same command. ``--report`` only writes the report.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from napari_cropeq.core.training.config import EARLIER
from napari_cropeq.evidence.evaluate.evaluation import Evaluation, EvaluationProgress
from napari_cropeq.evidence.evaluate.experiment import Experiment
from napari_cropeq.evidence.evaluate.table import NONE, decibels, gain_of, markdown
from napari_cropeq.evidence.evaluate.truth import Truth
from napari_cropeq.evidence.evaluate.upscaling import INTERPOLATIONS
from napari_cropeq.evidence.records import CELLS, read_records, write_json
from napari_cropeq.formats.open import open_image

ROOT = Path(__file__).resolve().parents[1]
KEPT = "training-cells"
VOLUMES = {
    "MRI": "mri_t1_isotropic_1mm.nii.gz",
    "EM": "em_isotropic_8nm.tif",
    "brain": "mouse_brain_whole_50x40x40um.ome.tif",
}
MAIN = (("MRI", 2.0), ("MRI", 4.0), ("EM", 4.0), ("brain", 4.0))
ODD = (("MRI", 2.433), ("MRI", 2.5))
ALL = tuple((volume, factor) for volume in VOLUMES for factor in (2.0, 3.0, 4.0, 5.0))


class Wanted(NamedTuple):
    """An experiment of the benchmark, before its volume is read."""

    volume: str
    factor: float
    method: str
    minutes: float | None = None

    @property
    def column(self) -> str:
        """Header of its column in the report."""
        return self.method if self.minutes is None else f"{self.method}, {self.minutes:g} min"


def plan(full: bool) -> list[Wanted]:
    """Return the experiments, the most informative first: the default ones, then 3 minutes before 1 and 10."""
    experiments = _each(MAIN, "cubic", "quintic")
    for pair in MAIN:
        experiments += [*_each([pair], "fast", minutes=1), *_each([pair], "fast", "padded", minutes=3)]
    if full:
        experiments += _each((*ALL, *ODD), "cubic", "quintic")
        experiments += _each(MAIN, "valid", minutes=3)
        experiments += _each(ALL, "fast", "padded", minutes=3)
        experiments += _each(ODD, "fast", minutes=3)
        experiments += _each(MAIN, "fast", "padded", minutes=10)
        experiments += _each((*ALL, *ODD), "fast", minutes=1)
        experiments += _each(ALL, "padded", minutes=1)
        experiments += _each((*ALL, *ODD), "fast", minutes=10)
        experiments += _each(ALL, "padded", minutes=10)
    return list(dict.fromkeys(experiments))


def _each(pairs: Iterable[tuple[str, float]], *methods: str, minutes: float | None = None) -> list[Wanted]:
    return [Wanted(volume, factor, method, minutes) for volume, factor in pairs for method in methods]


def find_data() -> Path:
    """Return the folder of the volumes: ``shared/data`` beside the checkout, or in a parent folder."""
    folders = [parent / "shared" / "data" for parent in ROOT.parents]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def run(wanted: Sequence[Wanted], arguments: argparse.Namespace) -> None:
    """Compute the missing experiments and write the report after each."""
    truths: dict[str, Truth] = {}
    for volume in dict.fromkeys(experiment.volume for experiment in wanted):
        path = arguments.data / VOLUMES[volume]
        if path.exists():
            truths[volume] = Truth.of(open_image(path))
        else:
            print(f"SKIPPED {volume}: there is no {path}", flush=True)
    experiments = [
        Experiment(
            truths[w.volume],
            w.factor,
            w.method,
            w.minutes and w.minutes * arguments.share,
            device="cpu",
            overrides=EARLIER,  # benchmarks/noise compares it with the default training of now
        )
        for w in wanted
        if w.volume in truths
    ]
    if not experiments:
        return
    evaluation = Evaluation(experiments, arguments.out)
    kept = arguments.results / KEPT
    copy_cells(kept, evaluation.folder)  # committed experiments are not repeated
    for step in evaluation.run():
        if step.record is not None:
            say(step)
            copy_cells(evaluation.folder, kept)
            report(wanted, arguments)


def copy_cells(source: Path, target: Path, pattern: str = "*.json") -> None:
    """Copy records of finished experiments, without models, that are missing in ``target``."""
    for path in source.glob(pattern):
        if not (target / path.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def say(step: EvaluationProgress) -> None:
    """Print a line for an experiment that is finished or was finished before."""
    if step.record is None:
        return
    scores, load = step.record["scores"], step.record["load"]
    now = step.experiment
    name = f"{now.truth.name} x{now.factor:g} {now.method} {now.budget}".rstrip()
    text = f"[{step.number + 1}/{step.total}] {name}: {decibels(scores['psnr'])} dB, SSIM {scores['ssim']:.4f}"
    print(f"{text}, load {load['start']} to {load['end']}, {step.stage}", flush=True)


def report(wanted: Sequence[Wanted], arguments: argparse.Namespace) -> None:
    """Write ``training.json`` and ``training.md`` from the finished experiments."""
    copy_cells(arguments.results / KEPT, arguments.out / CELLS)
    found = read_records(arguments.out)
    # A short run also shows the experiments of an earlier, longer run.
    shown = list(dict.fromkeys([*wanted, *(w for w in plan(full=True) if match(w, found, arguments.share))]))
    machines: list[Any] = []
    experiments = [entry(w, found, arguments.share, machines) for w in shown]
    about = {
        "axis": "z",
        "rim": 16,
        "data_range": "of the truth, less the rim",
        "fwhm": "the factor",
        "share_of_budgets": arguments.share,
    }
    values = {"about": about, "machines": machines, "cells": experiments}
    arguments.results.mkdir(parents=True, exist_ok=True)
    write_json(arguments.results / "training.json", values)
    (arguments.results / "training.md").write_text(text_of(values), encoding="utf-8")


def match(wanted: Wanted, found: Sequence[Any], share: float) -> Any:
    """Return the newest record of an experiment with the default settings, None if it has not been run."""
    minutes = None if wanted.minutes is None else wanted.minutes * share
    name = Path(VOLUMES[wanted.volume]).name.partition(".")[0]

    def fits(key: dict[str, Any]) -> bool:
        own = (key["truth"], key["factor"], key["method"], key.get("minutes"), key["axis"], key["fwhm"])
        return own == (name, wanted.factor, wanted.method, minutes, "z", wanted.factor) and not key.get("overrides")

    fitting = [result for result in found if fits(result["key"])]
    return max(fitting, key=lambda result: result["finished"], default=None)


def entry(wanted: Wanted, found: Sequence[Any], share: float, machines: list[Any]) -> dict[str, Any]:
    """Return an experiment of the report; its machine is an index into ``machines``."""
    result = match(wanted, found, share)
    if result is None:
        return {**wanted._asdict(), "column": wanted.column, "status": "not run"}
    if result["machine"] not in machines:
        machines.append(result["machine"])
    kept = {name: result[name] for name in ("scores", "training", "inference", "degraded", "load", "finished")}
    gain = gain_of(result, found)
    done = {"status": "done", "over_quintic": gain, "machine": machines.index(result["machine"])}
    return {**wanted._asdict(), "column": wanted.column, **done, **kept, "recipe": result["key"].get("recipe")}


def text_of(values: dict[str, Any]) -> str:
    """Return the report in Markdown."""
    parts = [
        "# Quality against training time\n",
        "Made by `make bench-training` (`FULL=1` adds the rest); what is measured, and how, is in "
        "[docs/benchmarks.md](../../docs/benchmarks.md).\n",
        machines_of(values["machines"]),
    ]
    if values["about"]["share_of_budgets"] != 1:
        parts.append(f"**A trial: {values['about']['share_of_budgets']:g} of every training time.**\n")
    parts += [
        "## Side by side\n",
        "PSNR in dB (less that of quintic interpolation) / SSIM.\n",
        side_by_side(values["cells"]),
        "## Each training\n",
        details(values["cells"]),
    ]
    return "\n".join(parts)


def machines_of(machines: Sequence[Any]) -> str:
    """Return the descriptions of the machines."""
    lines = []
    for number, machine in enumerate(machines):
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        lines.append(
            f"Machine {number}: {machine['processor']}, {machine['cores']} cores, {machine['torch_threads']} torch "
            f"threads, {machine['instruction_set']}; {versions}.\n"
        )
    return "\n".join(lines) or "No experiment has been run yet.\n"


def side_by_side(experiments: Sequence[Any]) -> str:
    """Return a table with a row for each volume and factor, a column for each method and training time."""
    order = [w.column for w in plan(full=True)]
    columns = sorted({experiment["column"] for experiment in experiments}, key=_place_in(order))
    rows = []
    for volume, factor in dict.fromkeys((experiment["volume"], experiment["factor"]) for experiment in experiments):
        here = {c["column"]: _scores(c) for c in experiments if (c["volume"], c["factor"]) == (volume, factor)}
        rows.append([volume, f"{factor:g}", *(here.get(column, NONE) for column in columns)])
    return markdown(["volume", "factor", *columns], rows)


def _place_in(order: Sequence[str]) -> Any:
    """Return a sort key: interpolations first, then each method by its training time."""
    methods = list(dict.fromkeys(column.partition(",")[0] for column in order))

    def place(column: str) -> tuple[int, float]:
        method, _, minutes = column.partition(", ")
        return methods.index(method), float(minutes.partition(" ")[0] or 0)

    return place


def _scores(experiment: Any) -> str:
    if experiment["status"] != "done":
        return experiment["status"]
    gain = experiment["over_quintic"]
    against = "" if gain is None or experiment["method"] == "quintic" else f" ({gain:+.2f})"
    return f"{decibels(experiment['scores']['psnr'])}{against} / {experiment['scores']['ssim']:.4f}"


def details(experiments: Sequence[Any]) -> str:
    """Return a table with a row for each finished training."""
    rows = []
    for experiment in experiments:
        if experiment["method"] in INTERPOLATIONS or experiment["status"] != "done":
            continue
        training, inference, load = experiment["training"], experiment["inference"], experiment["load"]
        busy = [NONE if at is None else f"{at[0]:.1f}" for at in (load["start"], load["end"])]
        rows.append(
            [
                *(experiment["volume"], f"{experiment['factor']:g}", experiment["column"], training["network"]),
                *(str(training["patches"]), f"{training['patches_per_second']:.1f}", f"{training['seconds']:.0f}"),
                *(f"{inference['seconds']:.1f}", f"{inference['voxels_per_second'] / 1e3:.0f}", inference["tiling"]),
                *(" to ".join(busy), str(experiment["machine"])),
            ]
        )
    header = ["volume", "factor", "method", "network", "patches", "patches/s", "training, s"]
    header += ["inference, s", "kvoxel/s", "tiles", "load, start to end", "machine"]
    return markdown(header, rows) if rows else "None has been run yet.\n"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all factors and training times, hours")
    parser.add_argument("--report", action="store_true", help="only write the report, from the finished experiments")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmark-output" / "training", help="experiments and models"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="the report")
    parser.add_argument("--data", type=Path, default=find_data(), help="folder of the volumes")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--share", type=float, default=1.0, help="fraction of every training time, for a trial")
    return parser.parse_args(words)


def main() -> int:
    """Run the benchmark."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    wanted = plan(arguments.full)
    if not arguments.report:
        try:
            run(wanted, arguments)
        except KeyboardInterrupt:
            print("Interrupted. Finished experiments are kept; run the same command to continue.", file=sys.stderr)
            return 130
    report(wanted, arguments)
    print((arguments.results / "training.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
