"""Draw the packages of this project by floors, with the files that an export and a viewport pass.

The picture is in docs/developers.md. Usage: python scripts/house.py [--check]
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_cropeq"
PAGE = ROOT / "docs" / "developers.md"
BEGIN, END = "<!-- made by scripts/house.py -->\n", "<!-- end -->\n"
FLOORS = ("gui", "cli", "api", "evidence", "run", "view", "compute", "store", "formats", "core")
"""From the top down: a package imports only from those below it; gui and cli do not import each other."""

WIDTH = 118
NAMES = 58


def imports_of(path: Path) -> set[str]:
    """Return the packages that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_cropeq."):
            found.add(str(node.module).split(".")[1])
    return found & set(FLOORS)


def wrapped(words: list[str], width: int) -> list[str]:
    """Wrap words to lines of at most ``width`` characters."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def files_of(package: str) -> list[str]:
    """Return the files of a package, those of its subpackages after their names."""
    folder = PACKAGE / package
    inside = sorted(path.parent for path in folder.glob("*/__init__.py"))
    out = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("__")]
    for part in inside:
        names = [path.stem for path in sorted(part.glob("*.py")) if not path.stem.startswith("__")]
        out += [f"{part.name}/:", *names]
    return out


def trips() -> dict[str, list[str]]:
    """Return the files that an export and a viewport pass, in order; from real runs."""
    command = [sys.executable, str(ROOT / "scripts" / "trip.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith("  "):
            list(found.values())[-1].append(line.split()[0])
        elif line.endswith(")"):
            found[line.partition(":")[0]] = []
    return found


def picture(ways: dict[str, list[str]]) -> str:
    """Return the picture: a block for each floor, with the numbered files of each way beside it."""
    rule = "-" * WIDTH
    lines = [f"{'':9} {'files':{NAMES}} {'an export':24} a viewport".rstrip(), rule]
    for package in FLOORS:
        names = wrapped(files_of(package), NAMES)
        stops = [
            [
                f"{n} {file.partition('/')[2].removesuffix('.py')}"
                for n, file in enumerate(way, 1)
                if file.startswith(f"{package}/")
            ]
            for way in ways.values()
        ]
        height = max(len(names), *(len(stop) for stop in stops))
        for row in range(height):
            title = package if row == 0 else ""
            name = names[row] if row < len(names) else ""
            one, other = (stop[row] if row < len(stop) else "" for stop in stops)
            lines.append(f"{title:9} {name:{NAMES}} {one:24} {other}".rstrip())
        lines.append(rule)
    return "```text\n" + "\n".join(lines) + "\n```\n"


def names_in(text: str) -> list[str]:
    """Return the names in a picture, sorted, since threads may change the order of two files."""
    return sorted(re.findall(r"[a-z_][a-z_/]*", text))


def drawn(page: str) -> str:
    """Return the picture in a page."""
    return page[page.index(BEGIN) + len(BEGIN) : page.index(END)]


def upwards() -> list[str]:
    """Return the imports that point upwards, or from one front end to the other."""
    wrong = []
    for number, package in enumerate(FLOORS):
        above = {*FLOORS[:number], *({"gui", "cli"} - {package} if package in ("gui", "cli") else ())}
        for path in sorted((PACKAGE / package).rglob("*.py")):
            wrong += [f"{path.relative_to(PACKAGE)} imports {name}" for name in sorted(imports_of(path) & above)]
    return wrong


def main(words: list[str]) -> int:
    """Write the picture into the page, or check that it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    wrong, new = upwards(), picture(trips())
    print("\n".join(wrong) or "Every import points downwards.")
    if "--check" in words:
        old, found = names_in(drawn(page)), names_in(new)
        for _ in range(2):  # on a busy machine, a run may end before a thread has passed its last file
            found = found if found == old else names_in(picture(trips()))
        changed = sorted(set(old) ^ set(found))
        out_of_date = f"{PAGE.name} is out of date ({', '.join(changed)}): run python scripts/house.py"
        print("The picture is up to date." if old == found else out_of_date)
        return bool(wrong) or old != found
    begin = page.index(BEGIN) + len(BEGIN)
    PAGE.write_text(page[:begin] + new + page[page.index(END) :], encoding="utf-8")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
