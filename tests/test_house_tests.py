"""What the house asks of its tests: names in words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
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


@pytest.mark.parametrize("name", ["test_K9_a_worker_dies", "test_I1_to_I8_files", "R7", "test_k9_a_worker_dies"])
def test_a_name_that_is_a_code_is_found(name: str) -> None:
    assert CODE.match(name)
