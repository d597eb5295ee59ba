"""What says which versions and systems are supported agrees: metadata, constraints, the recipe and the workflows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import napari_cropeq

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [Requirement(line) for line in PROJECT["dependencies"]]
LOWEST = {requirement.name: next(iter(requirement.specifier)).version for requirement in REQUIREMENTS}
CONDA = {"dask": "dask-core", "matplotlib": "matplotlib-base", "napari": "napari-base", "torch": "pytorch"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pins(name: str) -> dict[str, str]:
    """Return the versions of a constraints file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_oldest_versions_are_those_of_the_metadata():
    oldest = pins("constraints-oldest.txt")
    wanted = {name: Version(version) for name, version in LOWEST.items()}
    # A later one where the others need it: napari does not install with older ones of these.
    later = {name for name in wanted if Version(oldest[name]) != wanted[name]}
    assert later <= {"platformdirs", "superqt"}
    assert all(Version(oldest[name]) >= wanted[name] for name in wanted)


def test_the_recipe_has_the_requirements_of_the_metadata():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    found = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert found.pop("python") == "${{ python_min }}"
    assert found == {CONDA.get(name, name): version for name, version in LOWEST.items()}
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]


def test_the_workflows_run_every_python_of_the_metadata():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    named = {name for name in PROJECT["classifiers"] if re.fullmatch(r".*:: 3\.\d+", name)}
    pythons = yaml.safe_load(text)["jobs"]["systems"]["strategy"]["matrix"]["python"]
    assert {f"Programming Language :: Python :: {python}" for python in pythons} == named


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_exists(path):
    text = path.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"run: make ([\w-]+)", text):
        assert f"\n{target}:" in makefile or target == "docs"
    for name in re.findall(r"\b((?:tests|scripts)/[\w./-]+)", text):
        assert (ROOT / name).exists(), name
    assert "permissions" in yaml.safe_load(text)


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == napari_cropeq.__version__
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert citation["license"] == PROJECT["license"].partition(" AND ")[0]  # of the software, without the sample data


def test_the_changelog_has_the_version_and_an_upgrade_note():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = napari_cropeq.__version__
    section = text.partition(f"## [{version}]")[2].partition("\n## ")[0]
    headings = re.findall(r"(?m)^### (.*)", section)
    assert headings == ["Upgrading", "Added", "Changed", "Fixed", "Security"]
    assert f"\n[{version}]: " in text and "\n[Unreleased]: " in text
