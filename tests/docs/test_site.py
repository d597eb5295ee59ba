"""The documentation's site is built without a warning, and has each message of an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_cropeq import errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pytest.importorskip("sphinx")
sys.path.insert(0, str(DOCS / "_ext"))
error_messages = pytest.importorskip("error_messages")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The command of ``make docs``, into another folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-b", "html"]
    made = subprocess.run([*command, DOCS, folder], capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr
    return folder


def test_each_page_is_built(site):
    assert {path.stem for path in DOCS.glob("*.md")} <= {path.stem for path in site.glob("*.html")}


def test_no_page_needs_a_connection_for_its_pictures(site):
    pictures = {
        (page.name, source)
        for page in site.glob("*.html")
        for source in re.findall(r"<img[^>]*\bsrc=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    }
    assert len(pictures) > 20
    assert [pair for pair in sorted(pictures) if not (site / pair[1].partition("?")[0]).is_file()] == []


def test_links_to_the_site_lead_somewhere(site):
    """Those of the README, the program and its errors."""
    texts = [ROOT / "README.md", *(ROOT / "src").rglob("*.py"), *(ROOT / ".github").rglob("*.yml")]
    links = {
        link
        for path in texts
        for link in re.findall(r"https://napari-cropeq\.github\.io/napari-cropeq/([\w.#-]*)", path.read_text("utf-8"))
    }
    assert len(links) > 10
    for link in links:
        page, _, anchor = link.partition("#")
        text = (site / (page or "index.html")).read_text(encoding="utf-8")
        assert not anchor or f'id="{anchor}"' in text, link


MESSAGES = {
    "text": ("ArgumentError", "There is no model to save yet.", "Train or load one first."),
    "with-names": ("MissingFileError", "There is no file *place*.", "Check its name and folder."),
    "constant": ("ArgumentError", "Tiles of *tile* voxels are too small.", "Choose 8 or more."),
    "one-of-two": ("ArgumentError", "A file and --networks are given.", "Give one of them."),
    "from-a-variable": (
        "ImageError",
        "Voxels in *place* are NaN or infinite (at *place*).",
        "Replace them, for instance by 0, and try again.",
    ),
    "from-a-function": (
        "ImageError",
        "*name* is cut short: its image needs *needed* bytes, but the file has *size*.",
        "Copy or export it again.",
    ),
}


@pytest.mark.parametrize(("kind", "problem", "remedy"), MESSAGES.values(), ids=MESSAGES)
def test_messages_are_read_from_the_source(kind, problem, remedy):
    found = [(m.kind, re.sub(r"\\(.)", r"\1", m.problem), m.remedy) for m in error_messages.messages()]
    assert (kind, problem, remedy) in found


def test_each_error_that_is_created_has_its_message(site):
    """The creations are counted in the text of the source, by another way than that of the page."""
    names = "|".join(name for name in errors.__all__ if name != "StoppedError")
    source = Path(errors.__file__).parent
    sources = {path.relative_to(source).as_posix(): path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    created = {
        f"{name}:{text[: found.start()].count(chr(10)) + 1}"
        for name, text in sources.items()
        if name != "errors.py"
        for found in re.finditer(rf"(?<![\w.])(?:{names})\((?!\))", text)
        if not text[: found.start()].endswith("class ")
    }
    messages = error_messages.messages()
    missing = created - {message.place for message in messages}
    passed_on = {place for place in missing if re.search(r"\.problem|sentence\(|Error\(problem,", line(sources, place))}
    assert sorted(missing - passed_on) == []
    page = (site / "troubleshooting.html").read_text(encoding="utf-8")
    assert page.count("<dt>") >= len({(message.problem, message.kind) for message in messages})


def line(sources: dict[str, str], place: str) -> str:
    name, _, number = place.rpartition(":")
    return "\n".join(sources[name].splitlines()[int(number) - 1 :][:2])
