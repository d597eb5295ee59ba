"""Tables and pictures of ``docs/evidence.md``, made with the commands that the page lists.

Each command is run once, in a folder with the volumes in ``data/``. Its JSON files are copied to
``benchmarks/results/evidence``, its pictures to ``docs/images/evidence``, and the tables of the page are made from the
JSON files alone. A stopped run continues with the same command. ``--report`` only makes the tables.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_cropeq.evidence import network_table
from napari_cropeq.evidence.evaluate.experiment import methods
from napari_cropeq.evidence.evaluate.seeds import spread_table
from napari_cropeq.evidence.evaluate.table import NONE, TABLE, decibels, gain_of, markdown, score_rows
from napari_cropeq.evidence.machine import describe_machine, load_average
from napari_cropeq.evidence.records import write_json
from napari_cropeq.evidence.verify import page as verification_page
from training import ROOT, VOLUMES, copy_cells, find_data

RESULTS = ROOT / "benchmarks" / "results"
KEPT = RESULTS / "evidence"
PAGE = ROOT / "docs" / "evidence.md"
PICTURES = ROOT / "docs" / "images" / "evidence"
RUNS = "runs.json"
PROGRAM = (sys.executable, "-m", "napari_cropeq.cli")  # not a `cropeq` that may be in the path

MRI, EM, BRAIN = (f"data/{name}" for name in VOLUMES.values())
SHOWN = (4, "valid")  # factor and network of the comparison with pictures on the page
STACK = "data/mouse_brain_2ch_5x2x2um.ome.tif"


@dataclass(frozen=True)
class Step:
    """A command, and the files to keep of its output, with their new names."""

    name: str
    command: str
    kept: dict[str, str]


def verify(factor: int, network: str) -> Step:
    """Return the step that compares tiles with the whole, for a network trained on the degraded MRI volume."""
    cells = f"mri/cells/mri_t1_isotropic_1mm_x{factor}"
    folder = f"verify_x{factor}_{network}"
    command = (
        f"cropeq verify mri_x{factor}.ome.tif -m {cells}_{network}_3min_*.safetensors "
        f"--against {cells}_padded_3min_*.safetensors --out {folder}"
    )
    kept = {f"{folder}/verify.json": f"{folder}.json"}
    if (factor, network) == SHOWN:
        kept |= {f"{folder}/{name}.png": f"{folder}_{name}.png" for name in ("differences", "profiles", "mismatch")}
    return Step(folder, command, kept)


def steps() -> list[Step]:
    """Return all steps, in their order."""
    found = [
        Step(f"networks_{filters}", f"cropeq info --networks --filters {filters} --json", {}) for filters in (32, 256)
    ]
    command = f"cropeq evaluate {MRI} --factors 2,4 --methods cubic,quintic,fast,valid,padded --minutes 3 --out mri"
    found.append(Step("mri", command, {"mri/evaluation.json": "mri.json", "mri/slices.png": "mri_slices.png"}))
    for factor in (2, 4):
        found.append(Step(f"degrade_x{factor}", f"cropeq degrade {MRI} --factor {factor} -o mri_x{factor}.ome.tif", {}))
        found += [verify(factor, "fast"), verify(factor, "valid")]
    found += [
        Step("brain_train", f"cropeq train {STACK} --channel all -o brain.safetensors --minutes 3 --json", {}),
        Step("brain_export", f"cropeq export {STACK} -m brain.safetensors -o brain_SR.ome.zarr --json", {}),
        Step(
            "brain_mip",
            f"cropeq mip brain_SR.ome.zarr {STACK} -o brain_mip.png --slab 320 336 --zoom 5 90 64",
            {"brain_mip.json": "brain_mip.json", "brain_mip.png": "brain_mip.png"},
        ),
    ]
    command = (
        f"cropeq evaluate {MRI} {EM} {BRAIN} --factors 2,3,4,5 --methods cubic,quintic,fast,padded --minutes 3 "
        "--out evaluation"
    )
    kept = {"evaluation/evaluation.json": "evaluation.json"}
    kept |= {f"evaluation/{name}.png": f"evaluation_{name}.png" for name in ("psnr", "ssim")}
    found.append(Step("evaluation", command, kept))
    return found


def run(todo: Iterable[Step], folder: Path) -> None:
    """Run the commands that have not succeeded yet, and save their output and times."""
    runs = read(folder / RUNS) or {}
    for step in todo:
        if runs.get(step.name, {}).get("command") == step.command:
            continue
        print(step.command, flush=True)
        load, started = load_average(), time.perf_counter()
        words = [*PROGRAM, *expanded(step.command, folder)[1:]]
        done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
        print(done.stdout, flush=True)
        if "--json" in words:
            write_json(KEPT / f"{step.name}.json", json.loads(done.stdout.splitlines()[-1]))
        for own, name in step.kept.items():
            if name.endswith(".png"):
                shutil.copy(folder / own, PICTURES / name)
            else:  # without the path of the folder
                (KEPT / name).write_text((folder / own).read_text(encoding="utf-8").replace(f"{folder}/", ""), "utf-8")
        runs[step.name] = {
            "command": step.command,
            "seconds": round(seconds, 1),
            "machine": describe_machine(),
            "load": {"start": load, "end": load_average()},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / RUNS, runs)
        write_json(KEPT / RUNS, runs)


def expanded(command: str, folder: Path) -> list[str]:
    """Return the words of a command, with patterns expanded to files in ``folder`` as by a shell."""
    words = []
    for word in shlex.split(command):
        words += [str(path.relative_to(folder)) for path in sorted(folder.glob(word))] if "*" in word else [word]
    return words


def read(path: Path) -> Any:
    """Return the content of a JSON file, None if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# -- the page ------------------------------------------------------------------------------------------


def tables() -> dict[str, Callable[[], str]]:
    """Return the function that makes each table of the page, by the name of the table."""
    found: dict[str, Callable[[], str]] = {
        "commands": commands,
        "figure_5": figure_5,
        "spread": lambda: spread_table(kept("evaluation")["summary"]),
        "mri": mri,
        "brain": brain,
    }
    for step in steps():
        if step.name.startswith("networks"):
            found[step.name] = lambda name=step.name: networks(name)
        elif step.name.startswith("verify"):
            found[step.name] = lambda name=step.name: agreement(name)
    return found


def kept(name: str) -> Any:
    """Return the content of the JSON file of a command."""
    return json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))


def commands() -> str:
    """Return the commands with their times."""
    runs = kept("runs")
    rows = [[f"`{step.command}`", f"{runs[step.name]['seconds']:.0f} s"] for step in steps()]
    machines = {machine_of(run["machine"]): None for run in runs.values()}
    return f"{markdown(('command', 'time'), rows)}\nMachine: {'; '.join(machines)}.\n"


def machine_of(machine: dict[str, Any]) -> str:
    """Return the description of a machine."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}; {versions}"


def networks(name: str) -> str:
    """Return the table of networks."""
    facts = [network_table.NetworkFacts(**values) for values in kept(name)["networks"]]
    return markdown(network_table.HEADER, [network_table.cells(fact) for fact in facts])


def agreement(name: str) -> str:
    """Return the comparison of tiles with the whole: a table and sentences."""
    report = kept(name)
    rows = [verification_page.cells(row) for row in report["rows"]]
    sentences = verification_page.conclusion(report["rows"])
    return markdown(verification_page.HEADER, rows) + "".join(f"\n{sentence}\n" for sentence in sentences)


def mri() -> str:
    """Return the scores of the MRI volume, with the number of patches of each training."""
    records = in_order(kept("mri")["cells"])
    patches = [NONE if record["training"] is None else f"{record['training']['patches']}" for record in records]
    rows = [[*row[1:], seen] for row, seen in zip(score_rows(records), patches, strict=True)]
    return markdown((*TABLE[1:], "patches seen"), rows)


def in_order(records: list[Any]) -> list[Any]:
    """Return records sorted by volume, factor and method, interpolations first."""

    def place(record: Any) -> tuple[str, float, int]:
        return record["key"]["truth"], record["key"]["factor"], methods().index(record["key"]["method"])

    return sorted(records, key=place)


def figure_5() -> str:
    """Return a table with a row for each volume and factor, a column for each method."""
    records = in_order(kept("evaluation")["cells"])
    columns = list(dict.fromkeys(record["key"]["method"] for record in records))
    rows = []
    for truth, factor in dict.fromkeys((record["key"]["truth"], record["key"]["factor"]) for record in records):
        own = [r for r in records if (r["key"]["truth"], r["key"]["factor"]) == (truth, factor)]
        rows.append([truth, f"{factor:g}", *(scores(own, method, records) for method in columns)])
    machines = {machine_of(record["machine"]): None for record in records}
    return markdown(("volume", "factor", *columns), rows) + f"\nMachines: {'; '.join(machines)}.\n"


def scores(own: list[Any], method: str, records: list[Any]) -> str:
    """Return PSNR, its gain and SSIM of a method as text."""
    (record,) = (r for r in own if r["key"]["method"] == method)
    gain = gain_of(record, records)
    against = "" if gain is None or method == "quintic" else f" ({gain:+.2f})"
    return f"{decibels(record['scores']['psnr'])}{against} / {record['scores']['ssim']:.4f}"


def brain() -> str:
    """Return times and sizes for the two-channel volume."""
    trained, exported, drawn = kept("brain_train"), kept("brain_export")["exports"][0], kept("brain_mip")
    rows = [
        ["training", f"{trained['patches']} patches, {trained['seconds']:.0f} s"],
        ["result", f"{' x '.join(map(str, exported['shape']))} voxels (c, z, y, x), {exported['seconds']:.0f} s"],
        ["tiles", exported["exactness"]],
        ["projection", f"{drawn['seconds']:.1f} s"],
    ]
    return markdown(("what", "figure"), rows)


def filled(text: str) -> str:
    """Return the page with new tables.

    Raises
    ------
    KeyError
        If the page has a table with an unknown name.
    """
    made = tables()

    def table(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{made[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmark-output" / "evidence", help="where commands write")
    parser.add_argument("--data", type=Path, default=find_data(), help="folder of the volumes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of the commands to run")
    parser.add_argument("--report", action="store_true", help="only make the tables")
    return parser.parse_args()


def main() -> int:
    """Run the missing commands and write the tables into the page."""
    arguments = parse()
    for folder in (arguments.out, KEPT, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        data = arguments.out / "data"
        if not data.exists():
            data.symlink_to(arguments.data.resolve())
        # The experiments of the training benchmark are reused.
        for method in ("cubic", "quintic", "fast_3min", "padded_3min"):
            copy_cells(RESULTS / "training-cells", arguments.out / "evaluation" / "cells", f"*_x[2-5]_{method}_*.json")
        run([step for step in steps() if not arguments.only or step.name in arguments.only], arguments.out)
    if PAGE.exists():
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
