"""Every message of an error, read from the source: what is wrong, and what to do about it.

The page *Troubleshooting* is made from it, so no message can be missing there. A message is found where an error of
:mod:`napari_cropeq.errors` is created; names in its texts are shown as *name*.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from napari_cropeq import errors
from napari_cropeq.cli.hints import HINTS as TERMINAL
from napari_cropeq.gui.hints import HINTS as WINDOW

SOURCE = Path(errors.__file__).parent

AREAS = {
    "formats": "Files and layers",
    "core/slice_profile": "Voxel size and slice profile",
    "core/training": "Training",
    "core/devices": "Devices",
    "core": "Models, images and devices",
    "compute": "Computing a result",
    "store": "Results on disk",
    "view": "Preview and lazy layers",
    "run/distributed": "Several processes or machines",
    "run/publish": "Publishing a model",
    "run": "Volume, batch and export",
    "evidence": "Trust, verify and evaluate",
    "api": "Arguments in a script",
    "cli": "Command line",
    "gui": "Window",
    "": "Installation",
}
"""The heading for each folder of the source; the first that fits counts."""


PLAINER = {"self": "value", "of": "...", "str": "...", "where": "place", "what": "..."}
"""What is shown for names of the source that say nothing to a reader."""


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """A message of an error.

    Parameters
    ----------
    area : str
        What the user was doing, as a heading.
    problem, remedy : str
        Markdown, with the names of what is filled in between asterisks.
    setting : str
        The setting that front ends name a remedy for, or "".
    kind : str
        The name of the error.
    place : str
        File and line.
    """

    area: str
    problem: str
    remedy: str
    setting: str
    kind: str
    place: str


@cache
def messages() -> list[Message]:
    """Return the messages of all errors that the package creates."""
    found: list[Message] = []
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    functions = {
        node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
    for path, tree in trees.items():
        name = path.relative_to(SOURCE).as_posix()
        area = next(title for folder, title in AREAS.items() if name.startswith(folder))
        constants = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        for call, scope in _errors_created(tree):
            for problem, remedy in _texts(call, _variables(scope, constants), functions):
                setting = next((_text(k.value) for k in call.keywords if k.arg == "setting"), "")
                kind = ast.unparse(call.func).rpartition(".")[2]
                texts = (_with_constants(text, name) for text in (problem, remedy))
                found.append(Message(area, *texts, setting, kind, f"{name}:{call.lineno}"))
    return found


def as_markdown() -> str:
    """Return all messages as Markdown: a section for each area, in it the kinds of error, then each message."""
    found = messages()
    lines: list[str] = []
    for area in dict.fromkeys(AREAS.values()):
        here = [message for message in found if message.area == area]
        lines += [f"### {area}", ""] * bool(here)
        for kind in [name for name in errors.__all__ if any(message.kind == name for message in here)]:
            lines += [f"**{kind}**: {_meaning(kind)}", ""]
            texts = {(m.problem, m.remedy): m for m in sorted(here) if m.kind == kind}
            for message in texts.values():
                lines += [message.problem, *(f": {line}" for line in _cures(message)), ""]
    return "\n".join(lines)


def _cures(message: Message) -> Iterator[str]:
    """Yield the remedy, and what the window and the terminal say instead."""
    yield "The message says what to do." if re.fullmatch(r"|\*[^*]+\*", message.remedy) else message.remedy
    for where, hints in (("In the window", WINDOW), ("On the command line", TERMINAL)):
        if message.setting in hints and hints[message.setting] != message.remedy:
            yield f"{where}: {_escaped(hints[message.setting])}"


def _with_constants(text: str, name: str) -> str:
    """Fill in the constants of a module that a text names, such as *MAX FACTOR*."""

    def value(match: re.Match[str]) -> str:
        module = import_module(f"napari_cropeq.{name.removesuffix('.py').replace('/', '.')}")
        constant = getattr(module, match[1].replace(" ", "_"), None)
        if match[2]:
            constant = constant[int(match[2])]
        if isinstance(constant, str | int | float):
            return _escaped(str(constant))
        return (
            _escaped(", ".join(map(str, constant))) if isinstance(constant, tuple | list | dict) else match[0].lower()
        )

    return re.sub(r"\*([A-Z]+(?: [A-Z]+)*)(?: (\d))?\*", value, text)


def _meaning(kind: str) -> str:
    """Return what a kind of error means, and its usual causes."""
    text = (inspect.getdoc(getattr(errors, kind)) or "").partition("\n\nParameters")[0]
    return " ".join(text.split())


def _errors_created(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Yield each call that creates an error, with the function that it is in."""
    scopes: list[ast.AST] = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    inner = {call: scope for scope in scopes for call in ast.walk(scope) if isinstance(call, ast.Call)}
    for call, scope in inner.items():
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if call.args and called in {"kind", *errors.__all__}:
            yield call, scope


def _variables(scope: ast.AST, constants: dict[str, ast.expr]) -> dict[str, list[ast.expr]]:
    """Return what is assigned to each name in a function, or for the whole module."""
    variables: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            variables.setdefault(ast.unparse(node.targets[0]), []).append(node.value)
    texts = {name: [value] for name, value in constants.items() if isinstance(value, ast.Constant)}
    return texts | variables


def _texts(
    call: ast.Call, variables: dict[str, list[ast.expr]], functions: dict[str, ast.FunctionDef]
) -> Iterator[tuple[str, str]]:
    """Yield problem and remedy; several if a variable has one of several texts, none if another error's are kept."""
    arguments: list[ast.expr] = list(call.args)
    if isinstance(arguments[0], ast.Starred) and isinstance(arguments[0].value, ast.Call):
        returned = functions[ast.unparse(arguments[0].value.func)].body[-1]
        assert isinstance(returned, ast.Return) and isinstance(returned.value, ast.Tuple)
        arguments = returned.value.elts
    remedies = list(_alternatives(arguments[1], variables)) if len(arguments) > 1 else [""]
    for problem in _alternatives(arguments[0], variables):
        if re.fullmatch(r"\*[^*]+\*", problem):  # another error's
            continue
        for remedy in remedies:
            yield problem, remedy


def _alternatives(node: ast.expr, variables: dict[str, list[ast.expr]]) -> Iterator[str]:
    """Yield the texts that an expression can have."""
    match node:
        case ast.IfExp():
            yield from _alternatives(node.body, variables)
            yield from _alternatives(node.orelse, variables)
        case ast.Name(id=name) if name in variables:
            for value in variables[name]:
                yield from _alternatives(value, variables)
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.GeneratorExp() as each]):
            yield from _alternatives(each.elt, variables)
        case ast.Attribute(attr="problem") | ast.BinOp(left=ast.Attribute(attr="problem")):
            return  # another error's, which is in the list itself
        case ast.Call(func=ast.Name(id="sentence" | "str")):
            return
        case _:
            yield _text(node)


def _text(node: ast.expr) -> str:
    """Return a text as Markdown."""
    match node:
        case ast.Constant(value=str(text)):
            return _escaped(text)
        case ast.JoinedStr():
            parts = (p.value if isinstance(p, ast.FormattedValue) else p for p in node.values)
            text = "".join(_text(part) if _is_text(part) else _filled_in(part) for part in parts)
            return re.sub(r"(?<=[\w.])\*\*(?=[\w.])", "* *", text)  # a number and its unit
        case ast.BinOp(op=ast.Add()):
            return _text(node.left) + _text(node.right)
        case _:
            return _filled_in(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr | ast.Constant)


def _filled_in(node: ast.expr) -> str:
    """Return the name of what is filled in."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"*{PLAINER.get(name.strip('_'), name.strip('_').replace('_', ' '))}*"
        case ast.IfExp(body=ast.Constant(value=str(text))):
            return _escaped(text)
        case ast.IfExp():
            return _filled_in(node.body)
        case ast.BinOp(op=ast.Mult(), left=ast.Constant(value=str())):  # the "s" of a plural
            return ""
        case ast.BinOp():
            return _filled_in(node.left)
        case ast.Subscript(value=ast.Name(id=constant), slice=ast.Constant(value=index)) if constant.isupper():
            return f"*{constant} {index}*"
        case ast.Subscript(value=ast.Name(id=constant), slice=index) if constant.isupper():
            return _filled_in(index)
        case ast.Subscript():
            return _filled_in(node.value)
        case ast.Call(func=ast.Name(id="len" | "sum")):
            return "*number*"
        case ast.Call(func=ast.Name(id="map"), args=[_, mapped]):
            return _filled_in(mapped)
        case ast.Call(args=[first, *_]) if not isinstance(first, ast.GeneratorExp | ast.Constant):
            return _filled_in(first)
        case ast.Call(func=ast.Attribute(value=ast.Name() | ast.Attribute() as of)):
            return _filled_in(of)
        case _:
            return "*...*"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text)


def add_messages(app: object, page: str, source: list[str]) -> None:
    """Put the messages into the page that has a place for them."""
    source[0] = source[0].replace("<!-- messages -->", as_markdown()) if "<!-- messages -->" in source[0] else source[0]


def setup(app: object) -> dict[str, bool]:
    """Let Sphinx call :func:`add_messages` for each page."""
    app.connect("source-read", add_messages)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
