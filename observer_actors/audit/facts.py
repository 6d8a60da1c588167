"""What one Python file says of itself, by its syntax tree; nothing of it is imported or run. Pure.

Names of modules are kept as they are written: ``a.b.c``, or with leading dots when they are relative. ``from a import
b`` gives ``a.b``, which may be a module or no more than a name in one.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from observer_actors.audit.scripts import Settings, settings_in
from observer_actors.problems import UNREADABLE

PARSER: Final = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
"""What all files are read with: newer syntax is none to it."""

SUMMARY_CHARS_MAX: Final = 160
STRING_CHARS_MAX: Final = 200
NAME_CHARS_MAX: Final = 400
"""A longer name of a module is none that a file system could hold."""
_DOTTED: Final = re.compile(r"([A-Za-z_]\w*(?:\.\w+)+)(?::\w+)?")
_PREFIX: Final = re.compile(r"(?:[A-Za-z_]\w*\.)+")
_SCRIPT: Final = re.compile(r"[\w./-]*\w/[\w-]+\.py")
_IMPORT: Final = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]{0,2000}\)|[^(#\n]*)|import[ \t]+([^#\n]*))", re.MULTILINE
)
_SHEBANG: Final = re.compile(rb"#![^\n]*\b(?:python|pypy|uv run)")
_TEMPLATES: Final = (".in", ".j2", ".jinja", ".jinja2", ".mako", ".template", ".tmpl", ".tpl")
_IMPORTERS: Final = frozenset({"import_module", "__import__"})
_WALKERS: Final = frozenset({"iter_modules", "walk_packages"})
_NAMING: Final = (ast.Import, ast.ImportFrom, ast.Call, ast.Subscript)
_WEAKENING: Final = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.match_case, ast.For, ast.AsyncFor, ast.While),
    *(ast.ExceptHandler, ast.Try, ast.TryStar, ast.With, ast.AsyncWith),
)
_NO_MODULE: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


class Need(IntEnum):
    """How much a file needs what stands at a place in it."""

    CAUGHT = 0
    """It can do without: a missing module is caught."""
    PERHAPS = 1
    """It may never come to it: it stands below an ``if``, a ``case`` or a loop, behind ``and`` or ``or``, or where
    something else has failed, or must not have."""
    ALWAYS = 2


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    summary: str = ""
    """The first line of its docstring."""
    imports: Mapping[str, Need] = {}
    """Module -> where it is needed most."""
    replaced: frozenset[str] = frozenset()
    """Modules for which it puts something in ``sys.modules``; ``.``: for one below itself."""
    names: frozenset[str] = frozenset()
    """Modules (``a.b``), the beginnings of such (``a.b.``) and scripts (``a/b.py``) that stand in strings."""
    binds: frozenset[str] = frozenset()
    """What it defines at its top level; ``*`` when that cannot be known."""
    is_script: bool = False
    """It has an ``if __name__ == "__main__"``."""
    is_program: bool = False
    """Its first line names Python as what runs it."""
    settings: Settings = Settings()
    """What it gives to ``setup()``."""
    error: str = ""
    """Why it is no Python for the Python that runs this.

    Everything else is empty then, but for ``is_program``, and ``imports``: what looks like one.
    """
    line: int | None = None
    """Of the error."""
    is_read: bool = True
    """Not when time or memory had an end first, so that nobody knows whether it is Python."""


class _Cell(msgspec.Struct):
    cell_type: str = ""
    source: str | list[str] = ""


class _Notebook(msgspec.Struct):
    cells: list[_Cell] = []


def imports_of_notebook(text: str) -> frozenset[str]:
    """Give what a Jupyter notebook's code imports, whatever else than Python stands in its cells."""
    try:
        cells = msgspec.json.decode(text, type=_Notebook).cells
    except UNREADABLE:
        return frozenset()
    return guessed_imports("\n".join("".join(cell.source) for cell in cells if cell.cell_type == "code").encode())


def is_python(path: str, source: bytes) -> bool:
    """Say whether a file is Python, or says that it is."""
    return path.endswith(".py") or (not path.endswith(_TEMPLATES) and _SHEBANG.match(source) is not None)


def facts_of(source: bytes) -> Facts:
    """Read a file's bytes, in whatever encoding they say they have."""
    is_program = _SHEBANG.match(source) is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        return _facts(tree, is_program=is_program)
    except SyntaxError as error:
        said = (error.msg or "invalid syntax")[:SUMMARY_CHARS_MAX]
        imports = dict.fromkeys(guessed_imports(source), Need.ALWAYS)
        return Facts(error=said, line=error.lineno, is_program=is_program, imports=imports)
    except (ValueError, RecursionError, MemoryError) as error:  # a zero byte; nesting that no reader could follow
        said = f"cannot be parsed: {str(error)[:SUMMARY_CHARS_MAX] or type(error).__name__}"
        return Facts(error=said, is_program=is_program, is_read=isinstance(error, ValueError))


def _facts(tree: ast.Module, *, is_program: bool) -> Facts:
    imports: dict[str, Need] = {}
    replaced: set[str] = set()
    names: set[str] = set()
    settings = Settings()
    for node, need in _walked(tree):
        if isinstance(node, _NAMING):
            for name in _wanted(node):
                imports[name] = max(need, imports.get(name, need))
            replaced.update(_put_in_place(node))
        match node:
            case ast.Call(args=[first, *_]) if _called(node) in _IMPORTERS:
                names.update(_begun(first))
            case ast.Call(args=[ast.Name(id="__path__"), *_]) if _called(node) in _WALKERS:
                names.add(".")
            case ast.Call(func=ast.Name(id="setup") | ast.Attribute(attr="setup")):
                settings = settings_in(node)
            case ast.Constant(value=str(text)) if len(text) <= STRING_CHARS_MAX:
                names.update(_named(text))
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if _PREFIX.fullmatch(text):
                names.add(text)
    return Facts(
        summary=_summary(tree),
        imports={name: need for name, need in imports.items() if len(name) <= NAME_CHARS_MAX},
        replaced=frozenset(filter(None, replaced)),
        names=frozenset(names),
        binds=frozenset(name for statement in tree.body for name in _bound(statement)),
        is_script=any(map(_is_main, tree.body)),
        is_program=is_program,
        settings=settings,
    )


def _summary(tree: ast.Module) -> str:
    text = (ast.get_docstring(tree) or "").strip()
    return text.partition("\n")[0][:SUMMARY_CHARS_MAX]


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = "." * node.level + (node.module or "")
    for alias in node.names:
        joint = "" if base.endswith(".") or not base else "."
        yield base if alias.name == "*" else f"{base}{joint}{alias.name}"


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else _text(call.func)


def _loaded(call: ast.Call) -> Iterator[str]:
    """Give what ``import_module("a")`` imports: a relative name where its package is the file's own, or written out."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "package")]
    match given:
        case [ast.Constant(value=str(text)), ast.Constant(value=str(package)), *_] if text.startswith("."):
            yield package + text
        case [ast.Constant(value=str(text)), *package] if text.strip("."):
            yield from [text] if text[0] != "." or any(_text(one) == "__package__" for one in package) else []


def _begun(name: ast.expr) -> Iterator[str]:
    """Give the relative package out of which ``import_module(f".a.{name}", …)`` takes any."""
    match name:
        case (
            ast.JoinedStr(values=[ast.Constant(value=str(text)), *_])
            | ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Add())
        ) if text.startswith(".") and text.endswith("."):
            yield text


def guessed_imports(source: bytes) -> frozenset[str]:
    """Give what seems to be imported in newer Python, or among what is none: it keeps files alive, no more."""
    found: set[str] = set()
    for module, names, modules in _IMPORT.findall(source.decode("utf-8", "replace")):
        joint = "" if not module or module.endswith(".") else "."
        words = (part.split() for part in (names.strip("()\n") or modules).split(","))
        found.update(module + joint + part[0].strip("*") for part in words if part)
    return frozenset(name.rstrip(".") for name in found if name.strip(".") and len(name) <= NAME_CHARS_MAX)


def _wanted(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imported(node)
    elif isinstance(node, ast.Call) and _called(node) in _IMPORTERS:
        yield from _loaded(node)


def _walked(tree: ast.Module) -> Iterator[tuple[ast.AST, Need]]:
    """Give every node, and how much the file needs it."""
    waiting: deque[tuple[ast.AST, Need]] = deque([(tree, Need.ALWAYS)])
    while waiting:
        node, need = waiting.popleft()
        yield node, need
        most = _weakened(node) if isinstance(node, _WEAKENING) else {}
        waiting.extend((child, min(need, most.get(child, need))) for child in ast.iter_child_nodes(node))


def _weakened(node: ast.AST) -> dict[ast.AST, Need]:
    """Give what stands below a node and may be needed less than itself, each with how much at most."""
    perhaps: Sequence[ast.AST | None] = ()
    caught: Sequence[ast.AST] = ()
    match node:
        case ast.If(body=body, orelse=other) if not _is_main(node):
            perhaps = [*body, *other]
        case ast.IfExp(body=first, orelse=second):
            perhaps = [first, second]
        case ast.BoolOp(values=[_, *later]):
            perhaps = later
        case ast.match_case(guard=guard, body=body):
            perhaps = [guard, *body]
        case ast.For() | ast.AsyncFor() | ast.While():  # a loop may have no turn, and one that is left has no `else`
            perhaps = [*node.body, *node.orelse]
        case ast.ExceptHandler(body=body):
            perhaps = body
        case ast.Try() | ast.TryStar() if any(_is_no_module(handler.type) for handler in node.handlers):
            perhaps, caught = node.orelse, node.body
        case ast.With() | ast.AsyncWith() if any(map(_catches_import, node.items)):
            caught = node.body
    return dict.fromkeys(filter(None, perhaps), Need.PERHAPS) | dict.fromkeys(caught, Need.CAUGHT)


def _catches_import(item: ast.withitem) -> bool:
    """``suppress(ImportError)``, ``pytest.raises(ImportError)`` and the like."""
    return isinstance(item.context_expr, ast.Call) and any(map(_is_no_module, item.context_expr.args))


def _is_no_module(caught: ast.expr | None) -> bool:
    """Say whether an exception, or one of several, is what a missing module raises; none is all of them."""
    match caught:
        case ast.Tuple(elts=several):
            return any(map(_is_no_module, several))
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="builtins"), attr=name):
            return name in _NO_MODULE
    return caught is None


def _put_in_place(node: ast.AST) -> Iterator[str]:
    """Give the modules for which something is put in ``sys.modules``."""
    match node:
        case ast.Subscript(value=held, slice=name, ctx=ast.Store()) if _is_modules(held):
            is_own = any(isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(name))
            yield "." if is_own else _text(name)
        case ast.Call(func=function, args=[*given]):
            holder = function.value if isinstance(function, ast.Attribute) else None
            if any(one is not None and _is_modules(one) for one in (holder, *given)):
                keys = (key for one in given if isinstance(one, ast.Dict) for key in one.keys if key is not None)
                yield from map(_text, (*given, *keys))


def _is_modules(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="sys"), attr="modules") | ast.Constant(value="sys.modules"):
            return True
    return False


def _named(text: str) -> Iterator[str]:
    if text.endswith(".py"):
        yield from [text] if _SCRIPT.fullmatch(text) else []
    elif found := _DOTTED.fullmatch(text):
        yield found[1]
    elif _PREFIX.fullmatch(text):
        yield text


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield "*" if name == "__getattr__" else name
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While() | ast.Match():
            yield "*"


def _is_main(statement: ast.stmt) -> bool:
    match statement:
        case ast.If(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right])):
            return {_text(left), _text(right)} == {"__name__", "__main__"}
    return False


def _text(node: ast.expr) -> str:
    match node:
        case ast.Name(id=text) | ast.Constant(value=str(text)):
            return text
    return ""
