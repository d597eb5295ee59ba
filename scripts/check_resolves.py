"""Check that the package and all its extras can be installed as wheels with other versions of Python.

pip only resolves: nothing but metadata is downloaded, and nothing is run.
Usage: python scripts/check_resolves.py [3.14]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.12", "3.13", "3.14")
EXTRAS = ("all", "mri", "cluster", "trust", "remote", "bioio", "bioimageio", "test")
SHOWN = ("napari", "torch", "numpy", "zarr", "PyQt6", "PySide6_Essentials")


def resolved(python: str, folder: Path) -> dict[str, str]:
    """Return the versions that pip would install, by name."""
    report = folder / f"{python}.json"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--target", str(folder / "nothing"), "--python-version", python, "--only-binary=:all:"]
    subprocess.run([*command, "--report", str(report), f"{ROOT}[{','.join(EXTRAS)}]"], check=True)
    found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {metadata["name"]: metadata["version"] for metadata in found}


def main(pythons: list[str]) -> None:
    """Print one line for each version of Python."""
    with tempfile.TemporaryDirectory() as folder:
        for python in pythons or PYTHONS:
            versions = resolved(python, Path(folder))
            shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN if name in versions)
            print(f"Python {python}: {len(versions)} packages, among them {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
