"""Typed errors: problem and remedy apart, each a subclass of the built-in error that fits."""

from __future__ import annotations

import ast
import builtins
import copy
import pickle
from pathlib import Path

import pytest

from napari_cropeq import errors

TYPES = [getattr(errors, name) for name in errors.__all__ if name != "StoppedError"]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_an_error_keeps_problem_and_remedy(kind):
    error = kind("The step is 0 µm.", "Correct it.", setting="step")
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.problem, same.remedy, same.setting) == ("The step is 0 µm.", "Correct it.", "step")
        assert str(same) == "The step is 0 µm. Correct it."
        assert same.sentence({"step": "Use --step."}) == "The step is 0 µm. Use --step."
        assert not hasattr(same, "message"), "napari would show it"
        assert same.sentence({"other": "Use --other."}) == str(same)


def test_a_message_is_one_line_that_can_be_printed():
    """Its parts may come from a damaged file, or from the name of a file."""
    error = errors.ImageError("a\x7f.tif has the unit µ\n.", "Call it a\udcff\x1b[2J.")
    assert (error.problem, error.remedy) == (r"a\x7f.tif has the unit µ\n.", r"Call it a\udcff\x1b[2J.")
    assert str(error) == f"{error.problem} {error.remedy}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_tblib_can_create_an_error(kind):
    """Dask's processes exchange errors through tblib, which calls ``__new__`` without the message."""
    assert isinstance(kind.__new__(kind), kind)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind is not errors.CropeqError], ids=lambda k: k.__name__)
def test_an_error_is_a_built_in_one_too(kind):
    assert issubclass(kind, errors.CropeqError)
    assert any(base.__module__ == builtins.__name__ and base not in (Exception, object) for base in kind.__mro__[2:])


def test_the_module_imports_nothing():
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    assert [node.module for node in tree.body if isinstance(node, ast.ImportFrom)] == ["__future__"]
    assert not [node for node in tree.body if isinstance(node, ast.Import)]
