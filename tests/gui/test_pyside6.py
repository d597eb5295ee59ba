"""The widgets under PySide6, one case each, all in one separate process, because the other tests use PyQt6."""

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
    """Output and exit status of a process of pytest."""

    output: str
    code: int | None  # None if it had to be killed

    def outcome(self, name: str) -> str:
        """Return the outcome of a test."""
        text = self.output.partition(f"::{name} ")[2].partition("::test_")[0]  # Qt's warnings may be in between
        found = re.search(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b", text)
        return found[1] if found else "not finished"


@pytest.fixture(scope="module")
def ran() -> Ran:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"QT_API": "pyside6"}
    words = ["-p", "no:xdist", "-p", "no:cacheprovider", "-o", "qt_api=pyside6", "-v", "--color=no", TESTS]
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", *map(str, words)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
            return Ran(output, process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            return Ran(process.communicate()[0], None)


@pytest.mark.parametrize("widget", ["train", "preview", "volume", "batch", "verify"])
def test_a_widget_works(ran, widget):
    assert ran.outcome(f"test_{widget}") == "PASSED", ran.output


def test_the_process_ends_cleanly(ran):
    assert ran.code == 0, ran.output
