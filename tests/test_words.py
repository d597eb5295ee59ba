"""Plain English: phrases that a stranger would stumble over stand nowhere in code, tests and pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PHRASES = {
    "anew": "again, from scratch",
    r"befall\w*|befell": "happen to",
    "begun": "started",
    r"(is|are|be|was|were|been) told": "is reported, shown, described",
    r"tells? of": "report, describe",
    r"go(es|ne|ing)? on (with|from|there)": "continue, resume",
    "that is said": "what is reported",
    "whoever asks": "the caller",
    "as by default": "the default",
    r"a wish|wishes": "a request",
    r"got .{1,80}, expected": "the problem, then the remedy",
    r"lest|thereof|whereof|therein|whichever that is|as it is told": "a shorter sentence",
    r"\w*bricks?": "chunk",
    r"\w*crews?": "thread pool",
    r"\w*cohorts?": "test set",
    r"rims?": "border",
}
"""What is not said (a regular expression for whole words, in any case), and what is said instead."""

FORMAT = {
    "rim": r"`rim`|\"rim\"|--rim\b|FWHM, axis, rim, method|less the rim\"",
    "begun": r"begun\.(partial\.)?ome|\"begun\"|begun-|\"begun",
}
"""Names inside files, and options of earlier versions: they stay."""


def pages() -> list[Path]:
    """Return the tracked files that people read, without results that are kept and fixtures of earlier versions."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [Path(name) for name in listed.splitlines()]
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ""}
    left_out = (Path("tests/data"), Path("benchmarks/results"), Path("tests/test_words.py"), Path("LICENSE"))
    return [
        ROOT / name
        for name in names
        if name.suffix in kinds and not any(name == path or path in name.parents for path in left_out)
    ]


def found(text: str, phrase: str) -> list[str]:
    """Return the lines of a text that hold a phrase."""
    pattern = re.compile(rf"(?<![\w-])({phrase})(?![\w-])", re.IGNORECASE)
    kept = next((format_ for word, format_ in FORMAT.items() if re.fullmatch(phrase, word, re.IGNORECASE)), None)
    lines = (re.sub(kept, "", line) if kept else line for line in text.splitlines())
    return [line.strip() for line in lines if pattern.search(line)]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in pages() if path.is_file()}


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_stands_nowhere(texts, phrase):
    hits = [f"{name}: {line}" for name, text in texts.items() for line in found(text, phrase)]
    assert not hits, f"say: {PHRASES[phrase]}\n" + "\n".join(hits)


@pytest.mark.parametrize(
    "line",
    [
        "The training is begun anew.",
        "Got 3 slices, expected 4.",
        "what is told of it",
        "It goes on from the checkpoint.",
        "What may befall an export.",
        "self._bricks = 3",
    ],
)
def test_the_phrases_are_found(line):
    assert any(found(line, phrase) for phrase in PHRASES)


def test_what_files_hold_may_stay():
    assert not found('scores["rim"], "--rim"', PHRASES and r"rims?") and found("a rim of 16 voxels", r"rims?")
