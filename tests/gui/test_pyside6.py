"""The widgets under PySide6, each a case of its own; one process runs them all, for the other tests have PyQt6."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("under_pyside6.py")
LIMIT = 300  # seconds

pytestmark = pytest.mark.skipif(importlib.util.find_spec("PySide6") is None, reason="PySide6 is not installed")


@dataclass(frozen=True)
class Ran:
    """What a process of pytest said, and its exit status."""

    said: str
    code: int | None  # None where it had to be ended

    def outcome(self, name: str) -> str:
        """Return what became of a test."""
        told = self.said.partition(f"::{name} ")[2].partition("::test_")[0]  # Qt's own warnings may come in between
        found = re.search(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", told)
        return found[1] if found else "not ended"


@pytest.fixture(scope="module")
def ran() -> Ran:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"QT_API": "pyside6"}
    words = ["-p", "no:xdist", "-p", "no:cacheprovider", "-o", "qt_api=pyside6", "-v", "--color=no", TESTS]
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", *map(str, words)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT)
            return Ran(said, process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            return Ran(process.communicate()[0], None)


@pytest.mark.parametrize("widget", ["train", "preview", "volume", "batch", "verify"])
def test_a_widget_does_its_work(ran, widget):
    assert ran.outcome(f"test_{widget}") == "PASSED", ran.said


def test_the_process_ends_cleanly(ran):
    assert ran.code == 0, ran.said
