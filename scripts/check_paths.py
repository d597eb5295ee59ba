"""Check every dotted path, every file path and every name of a test in strings and pages.

Linters check imports, but manifests, entry points, monkeypatches, preloaded modules and pages name code in plain text,
where a wrong name shows only when it is used. Usage: python scripts/check_paths.py
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
FILE = re.compile(
    r"(?<![\w/.-])((?:src|tests|scripts|benchmarks|docs)/[\w/.-]+\.(?:py|md|yaml|toml|png|json))\b(?:::(\w+))?"
)
MADE = ("benchmarks/results/",)  # reports describe the state at the time they were made


def tracked() -> Iterator[Path]:
    """Yield the text files of the project."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in names:
        path = ROOT / name
        made = name.startswith((*MADE, "tests/data/"))
        if name and not made and path.is_file() and not path.is_symlink() and path.suffix in TEXT:
            yield path


def resolves(dotted: str, attribute: str | None) -> bool:
    """Return whether a dotted path is a module, or an attribute of one."""
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
    """Yield a line for each problem in a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for found in DOTTED.finditer(line):
            before = line[: found.start()]
            # "napari_cropeq.{name}" is completed at run time; "napari_cropeq.egg-info" is not a module.
            if line[found.end() : found.end() + 1] in ("{", "-") or "://" in before[-8:]:
                continue
            if not resolves(found[1], found[2]):
                yield f"{path.relative_to(ROOT)}:{number}: {found[0]} does not exist"
        for found in FILE.finditer(line):
            file, test = ROOT / found[1], found[2]
            if not file.exists() or (test and f"def {test}(" not in file.read_text(encoding="utf-8")):
                yield f"{path.relative_to(ROOT)}:{number}: {found[0]} does not exist"


def main() -> int:
    """Print all problems and return the exit code."""
    wrong = [problem for path in tracked() for problem in problems(path)]
    print("\n".join(wrong) or "All paths exist.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
