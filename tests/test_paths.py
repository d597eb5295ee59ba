"""Every dotted path in a string exists."""

from __future__ import annotations

import subprocess
import sys

from conftest import TESTS

SCRIPT = TESTS.parent / "scripts" / "check_paths.py"


def test_every_path_in_a_string_exists() -> None:
    ran = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
