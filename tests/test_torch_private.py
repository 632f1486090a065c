"""What torch does not promise to keep is used in one file, and there it works with the torch that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from medgen.system import torch_private

REPO = Path(__file__).parents[1]
PRIVATE = re.compile(
    r"torch\._(dynamo|inductor|C\b)|from torch[\w.]*\._|distributed_c10d|_monitor_workers"
)


def private(text: str) -> list[str]:
    """Find the lines that use what is private to torch."""
    return [line.strip() for line in text.splitlines() if PRIVATE.search(line)]


def test_only_one_file_uses_what_is_private_to_torch() -> None:
    files = [file for folder in ("medgen", "plugins") for file in (REPO / folder).rglob("*.py")]
    found = {file.stem for file in files if private(file.read_text())}
    assert found == {"torch_private"}


@pytest.mark.parametrize(
    "line",
    [
        "torch._dynamo.reset()",
        "from torch._inductor.exc import CppCompileError",
        "import torch._dynamo",
        "dist.distributed_c10d._set_pg_timeout(one, two)",
        "    def _monitor_workers(self, worker_group):",
    ],
)
def test_what_is_private_is_found(line: str) -> None:
    assert private(f"import torch\n{line}\n") == [line.strip()]


def test_graphs_are_counted() -> None:
    before = torch_private.count_graphs()
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert torch_private.count_graphs() == before + 1


def test_an_error_of_the_compiler_is_one_of_those_that_are_named() -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("refused")

    with pytest.raises(torch_private.compiler_errors(), match="refused"):
        torch.compile(lambda x: x + 2, backend=refuse)(torch.ones(2))


def test_the_cache_of_the_compiler_is_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    assert torch_private.compiler_cache() == str(tmp_path / "cache")
