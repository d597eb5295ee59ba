"""The wheel, its metadata, and its manifest."""

from __future__ import annotations

import email
import email.message
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import npe2
import pytest
import yaml

ROOT = Path(__file__).parents[1]
MANIFEST = Path("src/napari_cropeq/napari.yaml")
TOUR = Path(__file__).with_name("every_contribution.py")


def run(*command: object, **options: object) -> str:
    """Run a command and return its output; fail with the output if it fails."""
    # The environment made below must not use packages of this one by such variables.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the installed packages, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> email.message.Message:
    """Return the wheel's metadata."""
    return email.message_from_string(read(wheel, "METADATA"))


def read(wheel: Path, name: str) -> str:
    """Return a file of the wheel's .dist-info folder."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"napari_cropeq/__init__.py", "napari_cropeq/py.typed", "napari_cropeq/napari.yaml"} <= names
    assert not [name for name in names if not name.startswith(("napari_cropeq/", "napari_cropeq-"))]
    assert not [name for name in names if name.endswith(("ruff.toml", ".pyc"))]


def test_wheel_holds_the_real_sample_with_its_licence_and_stays_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
        texts = {name: archive.read(f"napari_cropeq/samples/{name}").decode() for name in ("README.md", "LICENSE.txt")}
    assert 500_000 < sizes["napari_cropeq/samples/yeast_mitochondria.ome.tif"] < 1_000_000
    assert sum(sizes.values()) < 2_000_000
    for text in texts.values():
        assert "Austin E. Y. T. Lefebvre" in text and "https://creativecommons.org/licenses/by/4.0/" in text
    assert read(wheel, "licenses/src/napari_cropeq/samples/LICENSE.txt") == texts["LICENSE.txt"]


def test_wheel_declares_manifest_and_command(wheel: Path) -> None:
    entry_points = read(wheel, "entry_points.txt").splitlines()
    assert "napari-cropeq = napari_cropeq:napari.yaml" in entry_points
    assert "cropeq = napari_cropeq.cli.main:main" in entry_points


def test_metadata_lets_the_hub_list_it(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "napari-cropeq"
    assert metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-4.0", "the code, and the real sample"
    assert "Framework :: napari" in metadata.get_all("Classifier", [])


def test_base_requirements_include_no_qt(metadata: email.message.Message) -> None:
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("napari>") for line in base)
    assert not [line for line in base if re.match(r"(pyqt[56]?\b|pyside|napari\[)", line, re.IGNORECASE)]


# Runs in the empty environment. npe2 is imported from the environment of the tests, whose packages, with the editable
# install among them, are then removed from the path: discovery sees only the wheel.
DISCOVER = """
import importlib.util, json, sys
borrowed, own = sys.argv[1:], list(sys.path)
sys.path += borrowed
import npe2, yaml
sys.path[:] = own
found = list(npe2.PluginManifest.discover())
print(json.dumps({
    "errors": [str(result.error) for result in found if result.error],
    "plugins": [result.manifest.name for result in found if result.manifest],
    "package": importlib.util.find_spec("napari_cropeq").origin,
}))
"""


def test_manifest_is_discovered_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)

    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    found = json.loads(run(python, "-c", DISCOVER, *borrowed, cwd=tmp_path))

    assert found["errors"] == []
    assert found["plugins"] == ["napari-cropeq"]
    assert Path(found["package"]).is_relative_to(tmp_path)


def test_every_contribution_works_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In an environment with the wheel and the packages of this one, but without the checkout."""
    environment, folder = tmp_path / "environment", tmp_path / "files"
    folder.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A folder in a .pth file comes after the wheel, and its own .pth files, such as an editable install's, are ignored.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site) / "borrowed.pth").write_text("\n".join(borrowed))

    report = json.loads(run(python, TOUR, folder, cwd=folder).splitlines()[-1])
    assert Path(report["package"]).is_relative_to(environment)
    manifest = yaml.safe_load((ROOT / MANIFEST).read_text(encoding="utf-8"))
    assert set(report["used"]) == {command["id"] for command in manifest["contributions"]["commands"]}


def test_every_command_of_the_manifest_can_be_imported() -> None:
    run(sys.executable, "-m", "npe2", "validate", "--imports", "napari_cropeq")


def test_manifest_names_its_icon_and_categories(wheel: Path) -> None:
    manifest = npe2.PluginManifest.from_file(ROOT / MANIFEST)
    package, name = str(manifest.icon).split(":")
    with zipfile.ZipFile(wheel) as archive:
        picture = archive.read(f"{package}/{name}")
    assert ElementTree.fromstring(picture).attrib["viewBox"] == "0 0 64 64" and len(picture) < 3_000
    assert [category.value for category in manifest.categories] == ["Image Processing", "IO"]


def test_manifest_has_no_key_bindings() -> None:
    """napari ignores the key bindings of manifests: widgets add theirs to the viewer's keymap."""
    assert npe2.PluginManifest.from_file(ROOT / MANIFEST).contributions.keybindings is None


@pytest.mark.skipif(os.name == "nt", reason="git makes a text file of a link on Windows")
def test_manifest_at_the_root_is_a_link() -> None:
    link = ROOT / "napari.yaml"
    assert link.is_symlink()
    assert link.resolve() == ROOT / MANIFEST
    assert link.is_file()


def test_pictures_of_the_readme_have_public_urls() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    markdown = re.findall(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)", text)
    html = re.findall(r"<img\b[^>]*\bsrc\s*=\s*[\"']?([^\"'\s>]+)", text, re.IGNORECASE)
    assert [url for url in markdown + html if not url.startswith("https://")] == []
    paths = [url.partition("/main/")[2] for url in markdown + html if "/napari-cropeq/" in url]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []
