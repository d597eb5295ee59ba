"""The files of a report: JSON, pictures, and one self-contained page."""

from __future__ import annotations

from pathlib import Path

from napari_cropeq.errors import AccessError
from napari_cropeq.evidence.page import Page
from napari_cropeq.evidence.records import write_json
from napari_cropeq.evidence.trust.figures import draw_differences, draw_maps
from napari_cropeq.evidence.trust.report import TrustReport
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["write_report"]

TITLES = {
    "consistency": "Consistency with what was acquired",
    "inferred": "What is inferred",
    "expected error": "Expected error",
    "resolution": "Resolution along the axial axis",
}
MEANINGS = {
    "consistency": "The result is blurred and sampled as the model assumes that the microscope does, and compared with "
    "the acquired slices. A result without noise differs from noisy slices by 1 × their noise: that is right. "
    "Consistency shows contradictions. It does not show structure that is invented where the microscope sees nothing.",
    "expected error": "How far voxels are from the truth, on average, as the network has learnt it from lateral "
    "slices. Structure that no lateral slice shows is neither restored nor expected.",
    "resolution": "By decorrelation analysis, in a cone of 30 degrees around the axial axis.",
}

UNKNOWN = (
    "Whether structures look alike in all directions cannot be detected: the network knows only how lateral slices "
    "look. Check conclusions in the acquired slices."
)


def write_report(report: TrustReport, folder: Path, command: str = "") -> list[Path]:
    """Write the files into a folder, which is created if it does not exist; return their paths.

    Raises
    ------
    AccessError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("trust.json", "maps.png", "differences.png", "trust.html")]
        write_json(paths[0], report.figures)
        draw_maps(report, paths[1])
        draw_differences(report, paths[2])
        _page(report, paths, command)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise AccessError(
            f"The report cannot be written to {folder} ({reason}).", "Choose another folder.", setting="folder"
        ) from error
    return paths


def _page(report: TrustReport, paths: list[Path], command: str) -> None:
    page, section = Page(f"What to trust: {report.name}"), report.section
    if command:
        page.command(command)
    page.heading("When not to trust it")
    for sentence in (*(report.warnings or ("No reason was detected.",)), UNKNOWN):
        page.text(sentence)
    places = ", ".join(
        f"{name} {start} to {stop - 1}" if stop - start > 1 else f"{name} {start}"
        for name, start, stop in zip("zyx", section.box.start, section.box.stop, strict=True)
    )
    page.picture(
        paths[1],
        f"One axial plane through the middle (SR voxels {places}). "
        "Slices that also show what lies beyond the volume cannot be compared, and are gray in the last map.",
    )
    for name, sentence in report.sentences.items():
        page.heading(TITLES[name])
        page.text(sentence)
        if name in MEANINGS:
            page.text(MEANINGS[name])
        if name == "consistency":
            page.picture(paths[2], "How often differences occur, in all slices, beside Gaussian noise alone.")
        if name == "expected error" and report.expected.intervals:
            rows = [[f"{100 * level:.0f} %", f"± {width:.2f}"] for level, width in report.expected.intervals.items()]
            page.table(("share of the errors", "within, times the expected error"), rows)
        if name == "resolution" and report.resolution is not None:
            page.table(("volume", "lower quartile", "median", "upper quartile"), _rows(report))
    page.heading("For a methods section")
    page.text(report.methods)
    page.write(paths[3])


def _rows(report: TrustReport) -> list[list[str]]:
    found = report.resolution
    assert found is not None
    rows = [("acquired slices, interpolated", found.before), ("result", found.after)]
    unit = UNITS.get(found.unit, found.unit)
    return [[name, *(f"{value:.3g} {unit}" for value in values)] for name, values in rows if values is not None]
