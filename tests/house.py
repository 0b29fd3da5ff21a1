"""Holds the rules of the house that no other tool knows; `make check` runs it.

Over `src/hive`: the size of modules, functions and classes, names that stand once, dialects that do not know each
other, packages that their own modules do not import, and a test file beside each module that does something.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_FIELDS = 20
MAX_METHODS = 20
REASON = "# large because: "
"""Directly above or under the line `class X:`, it lets a class be larger; the text behind it says why."""
DIALECTS = ("anthropic", "ollama", "openai", "responses")
"""In the package `dialects`, a module or folder of one dialect is named for it: `ollama.py`, `ollama_reader.py`."""
TESTED_TOGETHER = {"cli/demo": "cli/test_demo.py", "store/migrations": "store/test_schema.py"}
"""Folders of which all modules are tested by one file."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """A file of the product; `path` counts from the product's root, in POSIX form."""

    path: str
    lines: list[str]
    tree: ast.Module

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def package(self) -> tuple[str, ...]:
        """Return the packages that it lies in, the product's root first."""
        return ("hive", *self.path.split("/")[:-1])

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield all classes, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    @property
    def functions(self) -> Iterator[Function]:
        """Yield all functions, methods too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


def read(root: Path) -> list[Module]:
    """Return all modules of a product, in the order of their paths."""
    modules = []
    for file in sorted(root.rglob("*.py")):
        text = file.read_text()
        modules.append(Module(file.relative_to(root).as_posix(), text.splitlines(), ast.parse(text)))
    return modules


def too_long(module: Module) -> Iterator[str]:
    """Yield what is longer than a reader follows in one go."""
    if len(module.lines) > MAX_MODULE_LINES:
        yield f"{module.path}: {len(module.lines)} lines, more than {MAX_MODULE_LINES}"
    for function in module.functions:
        count = (function.end_lineno or function.lineno) - function.lineno + 1
        if count > MAX_FUNCTION_LINES:
            yield f"{module.path}:{function.lineno}: {function.name} has {count} lines, more than {MAX_FUNCTION_LINES}"


def fields(owner: ast.ClassDef) -> set[str]:
    """Return the fields of a class: what is annotated in its body, and what its methods assign to `self`."""
    names = {
        node.target.id for node in owner.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    todo: list[ast.AST] = [node for node in owner.body if isinstance(node, Function)]
    while todo:
        node = todo.pop()
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            names.add(node.attr)
        todo += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.ClassDef)]
    return names


def methods(owner: ast.ClassDef) -> set[str]:
    """Return the methods and properties of a class, without those that the language calls, like `__init__`."""
    names = {node.name for node in owner.body if isinstance(node, Function)}
    return {name for name in names if not is_dunder(name)}


def is_dunder(name: str) -> bool:
    """Does the language itself call this method?"""
    return name.startswith("__") and name.endswith("__")


def has_reason(module: Module, owner: ast.ClassDef) -> bool:
    """Does it say at the class why it is large?"""
    first = min([owner.lineno, *(each.lineno for each in owner.decorator_list)])
    near = [module.lines[first - 2] if first > 1 else "", *module.lines[owner.lineno : owner.body[0].lineno - 1]]
    return any(line.strip().startswith(REASON) and line.strip() != REASON.strip() for line in near)


def too_large(module: Module) -> Iterator[str]:
    """Yield the classes that are large without a reason, and the reasons at classes that are not."""
    for owner in module.classes:
        counts = len(fields(owner)), len(methods(owner))
        is_large = counts[0] > MAX_FIELDS or counts[1] > MAX_METHODS
        is_explained = has_reason(module, owner)
        said = f"{module.path}:{owner.lineno}: {owner.name} has {counts[0]} fields and {counts[1]} methods"
        if is_large and not is_explained:
            yield f"{said}, more than {MAX_FIELDS} or {MAX_METHODS}, and no line `{REASON}...`"
        elif is_explained and not is_large:
            yield f"{said}: the line `{REASON}...` is not needed"


def named_twice(modules: list[Module]) -> Iterator[str]:
    """Yield the names of files and classes that stand twice."""
    seen: dict[str, str] = {}
    for module in modules:
        places = [(f"class {owner.name}", f"{module.path}:{owner.lineno}") for owner in module.classes]
        if not is_dunder(module.name.removesuffix(".py")):
            places.append((f"file {module.name}", module.path))
        for name, place in places:
            if name in seen:
                yield f"{place}: the {name} stands at {seen[name]} too"
            seen.setdefault(name, place)


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of what a module imports, where that is a module or a name in one."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def dialect_of(parts: tuple[str, ...]) -> str | None:
    """Return the dialect that a dotted name in `hive.dialects` is of."""
    if parts[:2] != ("hive", "dialects") or len(parts) < 3:
        return None
    return next((name for name in DIALECTS if parts[2] == name or parts[2].startswith(f"{name}_")), None)


def mixed_dialects(module: Module) -> Iterator[str]:
    """Yield the imports from one dialect of another."""
    own = dialect_of((*module.package, module.name.removesuffix(".py")))
    for line, name in imported(module):
        other = dialect_of(tuple(name.split(".")))
        if own is not None and other not in (None, own):
            yield f"{module.path}:{line}: the dialect {own} knows the dialect {other}"


def own_packages(modules: list[Module]) -> Iterator[str]:
    """Yield the imports of a package by a module in it: a circle, for the package imports the module."""
    known = {".".join((*module.package, module.name.removesuffix(".py"))) for module in modules}
    known |= {".".join(module.package) for module in modules}
    for module in modules:
        if is_dunder(module.name.removesuffix(".py")):
            continue
        above = {".".join(module.package[:count]) for count in range(2, len(module.package) + 1)}
        for line, name in imported(module):
            if name not in known and name.rpartition(".")[0] in above:
                yield f"{module.path}:{line}: imports {name} from the package that it lies in"


def does_something(module: Module) -> bool:
    """Has it a function that is more than a signature, and that the language does not call by itself?"""
    return any(
        not is_dunder(function.name) and any(not _is_stub(statement) for statement in function.body)
        for function in module.functions
    )


def _is_stub(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def untested(modules: list[Module], tests: Path) -> Iterator[str]:
    """Yield the modules that do something and have no test file of their own."""
    for module in modules:
        if is_dunder(module.name.removesuffix(".py")) or not does_something(module):
            continue
        folder, _, name = module.path.rpartition("/")
        expected = f"{folder}/test_{name}".lstrip("/")
        for together, file in TESTED_TOGETHER.items():
            if f"{folder}/".startswith(f"{together}/"):
                expected = file
        if not (tests / expected).is_file():
            yield f"{module.path}: no tests/{expected}"


def check(root: Path, tests: Path) -> list[str]:
    """Return what breaks a rule, a line each."""
    modules = read(root)
    found = []
    for module in modules:
        found += [*too_long(module), *too_large(module), *mixed_dialects(module)]
    return [*found, *named_twice(modules), *own_packages(modules), *untested(modules, tests)]


def main() -> int:
    """Print what breaks a rule; return 1 if anything does."""
    here = Path(__file__).parent
    found = check(here.parent / "src" / "hive", here)
    for line in found:
        print(line)
    print(f"The house: {len(found)} rules broken." if found else "The house: all rules hold.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
