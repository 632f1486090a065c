"""What the house asks of its tests: names in words, and a test of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
REPO = TESTS.parent
CODE = re.compile(r"(test_)?([A-Z]+\d|(?!x0_|l1_)[a-z]\d+_)")
"""An id, such as `test_K9_`, where a name of a test or a file begins with words."""


def named() -> Iterator[str]:
    """Give the names of the test files and of the tests in them."""
    for file in sorted(TESTS.rglob("*.py")):
        yield file.stem
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_no_name_of_a_test_is_a_code() -> None:
    assert [name for name in named() if CODE.match(name)] == []


@pytest.mark.parametrize(
    "name", ["test_K9_a_worker_dies", "test_I1_to_I8_files", "R7", "test_k9_a_worker_dies"]
)
def test_a_name_that_is_a_code_is_found(name: str) -> None:
    assert CODE.match(name)


# Who tests what


def modules() -> dict[str, list[str]]:
    """Give the dotted names of the modules of the core and of the built-ins, by what their tests are named after."""
    found: dict[str, list[str]] = {}
    for root, package in ((REPO, "medgen"), (REPO / "plugins", "medgen_builtins")):
        for file in sorted((root / package).rglob("*.py")):
            if not file.stem.startswith("__"):
                dotted = ".".join(file.relative_to(root).with_suffix("").parts)
                found.setdefault(file.stem.lstrip("_"), []).append(dotted)
    return found


def covered(docstring: str) -> list[str]:
    """Read the modules that test files say they cover: `Covers: medgen.a.b, medgen.c.`, to the end of a paragraph."""
    said = re.findall(r"^Covers: (.+?)\.?\s*(?:\n\n|\Z)", docstring, re.M | re.S)
    return [module for paragraph in said for module in re.split(r",\s+", paragraph)]


def untested(found: dict[str, list[str]], files: dict[str, str]) -> list[str]:
    """List the modules without a test. files: the docstring of each test file, by what the file is named after.

    `_x.py` is a helper of `x.py` beside it, and tested with it. A name that modules of two folders share is no test.
    """
    said = {module for docstring in files.values() for module in covered(docstring)}
    alone = {
        stem
        for stem, names in found.items()
        if len({each.rpartition(".")[0] for each in names}) == 1
    }
    tested = said | {module for stem in alone & files.keys() for module in found[stem]}
    return sorted(
        each
        for names in found.values()
        for each in names
        if not {each, each.replace("._", ".")} & tested
    )


def docstrings() -> dict[str, str]:
    """Give the docstrings of the test files by what they are named after."""
    files: dict[str, str] = {}
    for file in TESTS.rglob("test_*.py"):
        name = file.stem.removeprefix("test_")
        files[name] = (
            files.get(name, "") + "\n\n" + (ast.get_docstring(ast.parse(file.read_text())) or "")
        )
    return files


def test_every_module_has_a_test_of_its_name_or_one_that_says_so() -> None:
    assert untested(modules(), docstrings()) == []


def test_a_test_covers_only_modules_that_there_are() -> None:
    there = {module for names in modules().values() for module in names}
    assert {
        module for docstring in docstrings().values() for module in covered(docstring)
    } - there == set()


def test_a_module_without_a_test_is_found() -> None:
    found = {
        "mask": ["medgen.mask", "medgen._mask"],
        "one": ["medgen.a.one", "medgen.b.one"],
        "fresh": ["medgen.fresh"],
    }
    found |= {"two": ["medgen._two"]}
    files = {
        "mask": "Masks.",
        "one": "Both.\n\nCovers: medgen.a.one,\nmedgen.c, medgen.two.\n\nMore.",
    }
    assert untested(found, files) == ["medgen.b.one", "medgen.fresh"]
