"""Spread of scores over volumes: for each method, and for the difference of two methods on the same volume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from napari_cropeq.errors import ArgumentError
from napari_cropeq.evidence.evaluate.table import NONE, base_of, budget_of, markdown

__all__ = ["HEADER", "MEASURES", "PAIR", "Spread", "spread_rows", "spread_table", "summarise"]

MEASURES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "psnr_over_quintic": "PSNR over quintic (dB)",
    "ssim_over_quintic": "SSIM over quintic",
}
"""Measures of a method on a volume; a pair of methods has differences of the first two."""

PAIR = ("valid", "padded")
"""Two networks that are compared volume by volume: the first minus the second."""

HEADER = ("measure", "factor", "method", "budget", "n", "mean", "sd", "median", "min", "max")

VOLUME = ("truth", "checksum")
"""Fields of a key that identify the volume; the others are common to all volumes of a group."""

Record = Mapping[str, Any]
"""What was measured in one experiment, see :mod:`napari_cropeq.evidence.records`."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Spread of a number over volumes.

    Parameters
    ----------
    n : int
        Number of volumes.
    mean, median, min, max : float
        In the number's unit.
    sd : float, optional
        Standard deviation of a sample (divided by n - 1); None for one volume.
    """

    n: int
    mean: float
    sd: float | None
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of ``values``, one for each volume.

        Raises
        ------
        ArgumentError
            If there are none.
        """
        if not len(values):
            raise ArgumentError("There are no values to summarise.", "Finish an experiment first.")
        numbers = np.asarray(values, np.float64)
        sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
        ends = float(numbers.min()), float(numbers.max())
        return cls(len(numbers), float(numbers.mean()), sd, float(np.median(numbers)), *ends)


def summarise(records: Iterable[Record], among: Iterable[Record] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the spread of every method over its volumes, in values that JSON can hold.

    Parameters
    ----------
    records : iterable
        Records of :class:`napari_cropeq.evidence.evaluate.evaluation.Evaluation`. Those whose keys differ in more
        than the volume are in different groups. A volume is identified by its checksum, and counts once.
    among : iterable, optional
        Records with the quintic interpolations; ``records`` by default.

    Returns
    -------
    dict
        ``methods``: factor, FWHM, axis, rim, method, budget, volumes, and the measures under ``spread``;
        ``pairs``: the same for one method minus another, on each volume that both have.
    """
    records = list(records)
    among = records if among is None else list(among)
    groups: dict[str, dict[str, Record]] = {}
    for record in records:
        groups.setdefault(_kind(record["key"]), {})[record["key"]["checksum"]] = record
    methods, pairs = [], []
    for group in groups.values():
        methods.append(_entry(group, {c: _measures(record, among) for c, record in group.items()}))
        first = next(iter(group.values()))["key"]
        other = next((g for g in groups.values() if _is_pair(first, next(iter(g.values()))["key"])), {})
        if both := {c: group[c] for c in group if c in other}:
            differences = {c: _difference(record, other[c]) for c, record in both.items()}
            pairs.append(_entry(both, differences) | {"method": " − ".join(PAIR)})
    return {"methods": methods, "pairs": pairs}


def spread_rows(summary: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return a summary as rows of text, one measure after another, without the quintic's gain over itself."""
    rows = []
    kinds = [(measure, "methods") for measure in MEASURES] + [(measure, "pairs") for measure in ("psnr", "ssim")]
    for measure, kind in kinds:
        signed = kind == "pairs" or measure.endswith("_over_quintic")
        for entry in summary[kind]:
            spread = entry["spread"].get(measure)
            if spread is None or (signed and entry["method"] == "quintic"):
                continue
            digits = f"{'+' if signed else ''}.{2 if measure.startswith('psnr') else 4}f"
            words = [format(spread[name], digits) for name in ("mean", "median", "min", "max")]
            sd = NONE if spread["sd"] is None else format(spread["sd"], digits.lstrip("+"))
            name = ("difference of " if kind == "pairs" else "") + MEASURES[measure]
            names = [name, f"{entry['factor']:g}", entry["method"], budget_of(entry)]
            rows.append([*names, str(spread["n"]), words[0], sd, *words[1:]])
    return rows


def spread_table(summary: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return a summary as a Markdown table."""
    return markdown(HEADER, spread_rows(summary))


def _kind(key: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in key.items() if name not in VOLUME}, sort_keys=True)


def _is_pair(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two keys are a :data:`PAIR` that differs in network and volume only."""
    if (one["method"], other["method"]) != PAIR:
        return False
    different = (*VOLUME, "method", "recipe")  # overrides, budget and seed decide the rest of the settings
    return all(one.get(name) == other.get(name) for name in {*one, *other} - set(different))


def _measures(record: Record, among: Sequence[Record]) -> dict[str, float | None]:
    own = {"psnr": record["scores"]["psnr"], "ssim": record["scores"]["ssim"]}
    base = base_of(record, among)
    if base is None:
        return own
    return own | {f"{name}_over_quintic": value for name, value in _difference(record, base).items()}


def _difference(one: Record, other: Record) -> dict[str, float | None]:
    pairs = {name: (one["scores"][name], other["scores"][name]) for name in ("psnr", "ssim")}
    return {name: None if a is None or b is None else float(a - b) for name, (a, b) in pairs.items()}


def _entry(group: Mapping[str, Record], measures: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    key = next(iter(group.values()))["key"]
    spread = {}
    for name in MEASURES:
        # The PSNR of equal volumes is infinite: JSON cannot hold it, and a mean with it is meaningless.
        values = [value for found in measures.values() if (value := found.get(name)) is not None]
        if values:
            spread[name] = asdict(Spread.of(values))
    facts = {name: key.get(name) for name in ("factor", "fwhm", "axis", "rim", "method", "minutes", "patches")}
    volumes = [{name: record["key"][name] for name in VOLUME} for record in group.values()]
    return facts | {"volumes": volumes, "spread": spread}
