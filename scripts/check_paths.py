"""Check every dotted path, and every path of a file, that stands in a string or a page.

Linters follow imports. A manifest, an entry point, a monkeypatch, a preloaded module or a page names code in plain
text, and a wrong name is found only when it is used. Usage: python scripts/check_paths.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".yaml", ".toml", ".cfg", ".sh", ""}
DOTTED = re.compile(r"\bnapari_cropeq((?:\.[A-Za-z_]\w*)+)(?::([A-Za-z_][\w.]*))?")
FILE = re.compile(r"(?<![\w/.-])((?:src|tests|scripts|benchmarks|docs)/[\w/.-]+\.(?:py|md|yaml|toml|png|json))\b")
MADE = ("benchmarks/results/",)  # reports, which say what was true when they were made


def tracked() -> Iterator[Path]:
    """Yield the text files of the project."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in names:
        path = ROOT / name
        made = name.startswith((*MADE, "tests/data/"))
        if name and not made and path.is_file() and not path.is_symlink() and path.suffix in TEXT:
            yield path


def resolves(dotted: str, attribute: str | None) -> bool:
    """Return whether a dotted path names a module, or something in one."""
    words = dotted.strip(".").split(".")
    for count in range(len(words), -1, -1):
        module = ".".join(["napari_cropeq", *words[:count]])
        rest = ".".join(filter(None, [".".join(words[count:]), attribute]))
        try:
            resolve_name(f"{module}:{rest}")
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def problems(path: Path) -> Iterator[str]:
    """Yield what is wrong in a file, a line each."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for found in DOTTED.finditer(line):
            before = line[: found.start()]
            # "napari_cropeq.{name}" is completed as the program runs; "napari_cropeq.egg-info" names no module.
            if line[found.end() : found.end() + 1] in ("{", "-") or "://" in before[-8:]:
                continue
            if not resolves(found[1], found[2]):
                yield f"{path.relative_to(ROOT)}:{number}: {found[0]} names nothing"
        for found in FILE.finditer(line):
            if not (ROOT / found[1]).exists():
                yield f"{path.relative_to(ROOT)}:{number}: there is no {found[1]}"


def main() -> int:
    """Print what is wrong and return the exit code."""
    wrong = [problem for path in tracked() for problem in problems(path)]
    print("\n".join(wrong) or "Every path names something.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
