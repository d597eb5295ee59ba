"""Records of an evaluation as rows and as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["base_of", "budget_of", "gain_of", "labels", "markdown", "score_rows", "score_table"]

TABLE = ("truth", "factor", "method", "budget", "PSNR (dB)", "SSIM", "over quintic (dB)")
"""Header of a table of records."""

GRID = ("checksum", "factor", "fwhm", "axis", "rim")
"""Fields of a key that two records must have in common to be compared."""

DIGITS = 6
"""Digits of a checksum in tables."""

NONE = "–"


def budget_of(key: Mapping[str, Any]) -> str:
    """Return a training budget as text."""
    if key.get("minutes") is not None:
        return f"{key['minutes']:g} min"
    return NONE if key.get("patches") is None else f"{key['patches']} patches"


def base_of(record: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the record of the quintic interpolation of the same volume, degraded and scored in the same way."""
    for other in records:
        same = all(other["key"][name] == record["key"][name] for name in GRID)
        if other["key"]["method"] == "quintic" and same:
            return other
    return None


def gain_of(record: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the gain of a record over the quintic interpolation of the same volume among ``records``, dB."""
    own, other = record["scores"]["psnr"], base_of(record, records)
    if other is None or own is None or other["scores"]["psnr"] is None:
        return None
    return float(own - other["scores"]["psnr"])


def labels(keys: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return a label for each volume, by name and checksum: its name, with part of the checksum if two have that name.

    Parameters
    ----------
    keys : iterable of mapping
        Each with ``truth`` (its name) and ``checksum``; may contain duplicates.
    """
    volumes = dict.fromkeys((key["truth"], key["checksum"]) for key in keys)
    names = [name for name, _ in volumes]
    return {(name, code): name if names.count(name) == 1 else f"{name} ({code[:DIGITS]})" for name, code in volumes}


def score_rows(
    records: Sequence[Mapping[str, Any]], among: Sequence[Mapping[str, Any]] | None = None
) -> list[list[str]]:
    """Return records as rows of text; see :func:`score_table`."""
    rows, called = [], labels(record["key"] for record in records)
    for record in records:
        key, scores, gain = record["key"], record["scores"], gain_of(record, among or records)
        names = [called[key["truth"], key["checksum"]], f"{key['factor']:g}", key["method"], budget_of(key)]
        gained = NONE if gain is None else f"{gain:+.2f}"
        rows.append([*names, decibels(scores["psnr"]), f"{scores['ssim']:.4f}", gained])
    return rows


def score_table(records: Sequence[Mapping[str, Any]], among: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return records as a Markdown table: method, factor, budget, PSNR, SSIM, gain over quintic interpolation.

    Parameters
    ----------
    records : sequence
        Records of :class:`napari_cropeq.evidence.evaluate.evaluation.Evaluation`.
    among : sequence, optional
        Records with the quintic interpolations; ``records`` by default.
    """
    return markdown(TABLE, score_rows(records, among))


def decibels(psnr: float | None) -> str:
    """Return a PSNR as text; None, which stands for infinity in JSON, is that of equal volumes."""
    return "∞" if psnr is None else f"{psnr:.2f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned in plain text too."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    cells = ([text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
