"""The code is laid out as docs/developers.md says: sizes of classes, files and functions, and the ways through it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import napari_cropeq
from conftest import TESTS

PACKAGE = Path(napari_cropeq.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST = {"lines of a file": 400, "lines of a function": 60, "methods": 16, "attributes": 16, "files of a folder": 17}
SETTINGS = {"TrainingConfig"}  # a field for each setting


def sizes() -> dict[str, dict[str, int]]:
    """Return every size that is limited, by what it is the size of."""
    found: dict[str, dict[str, int]] = {name: {} for name in MOST}
    for path in FILES:
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        found["lines of a file"][name] = text.count("\n")
        folder = path.parent.relative_to(PACKAGE).as_posix()
        found["files of a folder"][folder] = found["files of a folder"].get(folder, 0) + 1
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                found["lines of a function"][f"{name}:{node.name}"] = node.end_lineno - node.lineno
            elif isinstance(node, ast.ClassDef) and node.name not in SETTINGS:
                found["methods"][f"{name}:{node.name}"] = sum(isinstance(n, ast.FunctionDef) for n in node.body)
                found["attributes"][f"{name}:{node.name}"] = len(attributes(node))
    return found


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the fields of a class, and what its methods assign to ``self``."""
    found = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            if isinstance(inner.value, ast.Name) and inner.value.id == "self":
                found.add(inner.attr)
    return found


@pytest.mark.parametrize("kind", MOST)
def test_nothing_is_too_large(kind: str) -> None:
    assert {name: size for name, size in sizes()[kind].items() if size > MOST[kind]} == {}


def test_the_picture_and_the_ways_are_up_to_date() -> None:
    """Of a real export, and of a real window."""
    script = TESTS.parent / "scripts" / "house.py"
    ran = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
