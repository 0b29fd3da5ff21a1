"""The rules of the house, on small products with one fault each."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import house

FIELDS = "\n".join(f"    field_{number}: int" for number in range(21))
METHODS = "\n".join(f"    def method_{number}(self): ..." for number in range(21))


def broken(tmp_path: Path, files: dict[str, str], tests: tuple[str, ...] = ()) -> list[str]:
    """Return what a product of these files, with these test files, breaks."""
    for name, text in files.items():
        file = tmp_path / "hive" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in tests:
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    return house.check(tmp_path / "hive", tmp_path / "tests")


def test_a_product_that_keeps_the_rules_breaks_none(tmp_path: Path) -> None:
    files = {"a.py": "class A:\n    x: int\n", "b/__init__.py": "", "b/__main__.py": "", "c/__init__.py": ""}
    assert broken(tmp_path, files) == []


def test_a_module_has_400_lines_at_most(tmp_path: Path) -> None:
    assert broken(tmp_path, {"a.py": "\n" * 400, "b.py": "\n" * 401}) == ["b.py: 401 lines, more than 400"]


def test_a_function_has_60_lines_at_most(tmp_path: Path) -> None:
    text = "def f():\n" + "    ...\n" * 59 + "\n\nasync def g():\n" + "    ...\n" * 60
    assert broken(tmp_path, {"a.py": text}) == ["a.py:63: g has 61 lines, more than 60"]


def test_a_class_has_20_annotated_fields_at_most(tmp_path: Path) -> None:
    (line,) = broken(tmp_path, {"a.py": f"class A:\n{FIELDS}\n"})
    assert line.startswith("a.py:1: A has 21 fields and 0 methods, more than 20 or 20")


def test_a_class_has_20_methods_at_most(tmp_path: Path) -> None:
    (line,) = broken(tmp_path, {"a.py": f"class A:\n{METHODS}\n"})
    assert line.startswith("a.py:1: A has 0 fields and 21 methods")


@pytest.mark.parametrize(
    "body",
    [
        "self.x = 1",
        "self.x: int = 1",
        "self.x += 1",
        "self.y = self.x = 1; del self.y",
        "for self.x in (): pass",
        "if True:\n            (self.x, z) = 1, 2",
        "def inner():\n            self.x = 1",
    ],
)
def test_what_a_method_assigns_to_self_is_a_field(body: str) -> None:
    assert "x" in fields_of(f"class A:\n    def f(self):\n        {body}\n")


def test_slots_and_repeated_assignments_count_once() -> None:
    text = "class A:\n    __slots__ = ('x',)\n    x: int\n    def f(self):\n        self.x = 1\n        self.x = 2\n"
    assert fields_of(text) == {"x"}


def test_fields_of_others_and_of_nested_classes_are_not_its_own() -> None:
    text = (
        "class A:\n    def f(self, other):\n        other.x = 1\n        self.a.y = 2\n"
        "        class B:\n            def g(self):\n                self.z = 3\n"
    )
    assert fields_of(text) == set()


def test_a_property_with_a_setter_is_one_method_and_dunders_are_none() -> None:
    text = (
        "class A:\n    def __init__(self): ...\n    @property\n    def x(self): ...\n"
        "    @x.setter\n    def x(self, value): ...\n    async def f(self): ...\n"
    )
    assert house.methods(class_of(text)) == {"x", "f"}


@pytest.mark.parametrize(
    "text",
    [
        f"# large because: it lists all options\nclass A:\n{FIELDS}\n",
        f"class A:\n    # large because: it lists all options\n{FIELDS}\n",
        f"class A:\n    # large because: it lists all options\n    '''All options.'''\n{FIELDS}\n",
        f"from x import y\n\n# large because: it lists all options\n@y\n@y(1)\nclass A:\n{FIELDS}\n",
    ],
)
def test_a_class_that_says_why_may_be_larger(tmp_path: Path, text: str) -> None:
    assert broken(tmp_path, {"a.py": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        f"# large because: \nclass A:\n{FIELDS}\n",
        f"# large because: of another class\n\nclass A:\n{FIELDS}\n",
        f"class A:\n{FIELDS}\n# large because: it is too late\n",
    ],
)
def test_a_reason_stands_at_its_class_and_is_not_empty(tmp_path: Path, text: str) -> None:
    assert len(broken(tmp_path, {"a.py": text})) == 1


def test_a_reason_that_is_not_needed_any_more_goes(tmp_path: Path) -> None:
    (line,) = broken(tmp_path, {"a.py": "# large because: it was large once\nclass A:\n    x: int\n"})
    assert line.endswith("is not needed")


def test_a_file_name_stands_once_but_for_those_that_python_gives(tmp_path: Path) -> None:
    files = {
        "a/x.py": "",
        "b/x.py": "",
        "a/__init__.py": "",
        "b/__init__.py": "",
        "__main__.py": "",
        "b/__main__.py": "",
    }
    assert broken(tmp_path, files) == ["b/x.py: the file x.py stands at a/x.py too"]


def test_a_class_name_stands_once_private_and_nested_ones_too(tmp_path: Path) -> None:
    files = {"a.py": "class _A:\n    class B: ...\n", "b.py": "def f():\n    class B: ...\nclass _A: ...\n"}
    names = [line for line in broken(tmp_path, files, ("test_b.py",)) if "class" in line]
    assert sorted(names) == ["b.py:2: the class B stands at a.py:2 too", "b.py:3: the class _A stands at a.py:1 too"]


@pytest.mark.parametrize(
    "line",
    [
        "from hive.dialects.openai_reader import x",
        "from hive.dialects import openai_reader",
        "import hive.dialects.openai_reader",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hive.dialects.openai_reader import x",
    ],
)
@pytest.mark.parametrize("file", ["dialects/ollama.py", "dialects/ollama_writer.py", "dialects/ollama/writer.py"])
def test_a_dialect_does_not_know_another(tmp_path: Path, file: str, line: str) -> None:
    (said,) = broken(tmp_path, {file: line, "dialects/openai_reader.py": "x = 1"})
    assert said.endswith("the dialect ollama knows the dialect openai")


def test_a_dialect_knows_its_own_modules_and_those_of_none(tmp_path: Path) -> None:
    line = (
        "from hive.dialects.ollama_reader import x\nfrom hive.dialects.chat import y\nfrom hive.errors import Fault\n"
    )
    files = {"dialects/ollama.py": line, "dialects/chat.py": "from hive.dialects.ollama import z\n"}
    assert broken(tmp_path, files) == []


@pytest.mark.parametrize("line", ["from hive.a import f", "from hive.a.b import f"])
def test_a_module_does_not_import_the_package_that_it_lies_in(tmp_path: Path, line: str) -> None:
    (said,) = broken(tmp_path, {"a/__init__.py": "", "a/b/__init__.py": "", "a/b/c.py": line})
    assert said.startswith("a/b/c.py:1: imports hive.a")


def test_a_module_imports_its_neighbours_by_way_of_their_package(tmp_path: Path) -> None:
    files = {"a/__init__.py": "", "a/b.py": "from hive.a import c\nfrom hive.a.c import x\n", "a/c.py": "x = 1\n"}
    assert broken(tmp_path, files) == []


def test_a_module_that_does_something_has_its_own_test_file(tmp_path: Path) -> None:
    files = {"a/x.py": "def f():\n    return 1\n", "a/y.py": "def g():\n    return 1\n", "z.py": "def h(): return 1\n"}
    assert broken(tmp_path, files, ("a/test_x.py", "a/test_xy.py")) == [
        "a/y.py: no tests/a/test_y.py",
        "z.py: no tests/test_z.py",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "X = 1\n",
        "class A(Protocol):\n    def f(self) -> int:\n        '''Return one.'''\n    def g(self) -> int: ...\n",
        "class A(Exception):\n    def __init__(self):\n        self.x = 1\n",
    ],
)
def test_a_module_without_functions_needs_none(tmp_path: Path, text: str) -> None:
    assert broken(tmp_path, {"x.py": text}) == []


def test_a_folder_may_be_tested_by_one_file(tmp_path: Path) -> None:
    files = {"cli/demo/show.py": "def f():\n    return 1\n"}
    assert broken(tmp_path, files) == ["cli/demo/show.py: no tests/cli/test_demo.py"]
    assert broken(tmp_path, files, ("cli/test_demo.py",)) == []


def class_of(text: str) -> house.ast.ClassDef:
    return next(house.Module("a.py", text.splitlines(), house.ast.parse(text)).classes)


def fields_of(text: str) -> set[str]:
    return house.fields(class_of(text))
