"""A checkpoint, a manifest or a recipe from a stranger can be refused, and nothing else."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.forkserver import Server
from faults.payloads import PAYLOADS, sound

from medgen.run import checkpoint

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]
CANARY = "canary-4711-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def state(trained: Path) -> dict[str, Any]:
    """What is in a real checkpoint."""
    return dict(torch.load(trained / "bravo/latest.pt", weights_only=True))


def measure(report: str) -> None:
    """In a forked process: write how far its memory grows while a checkpoint is read."""
    load = checkpoint.load

    def measured(path: Path) -> dict[str, Any]:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = memory("VmHWM")
        try:
            return load(path)
        finally:
            Path(report).write_text(str(memory("VmHWM") - before))

    checkpoint.load = measured


def memory(name: str) -> int:
    """Bytes, from what Linux tells of this process."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(name))


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.row("X1")
def test_a_malicious_checkpoint_is_refused_runs_nothing_and_takes_no_memory(
    server: Server, state: dict[str, Any], tmp_path: Path, name: str
) -> None:
    evil, canary, report = tmp_path / "evil.pt", tmp_path / "canary", tmp_path / "memory"
    evil.write_bytes(PAYLOADS[name](state, canary))
    options = ("--num-images", 1, "--output-dir", tmp_path / "out")
    ended = server.run(
        "generate", "--image-model", evil, *options, hook=measure, given=(str(report),)
    )
    assert ended.code == 4, ended
    assert all(line.startswith(f"medgen: {evil}: ") for line in ended.err.splitlines()), ended.err
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    assert int(report.read_text()) <= 2 * evil.stat().st_size + (48 << 20)


@pytest.mark.parametrize(
    "name", ["system", "numpy_gadget", "bare_pickle", "old_format", "two_pickles", "deep"]
)
@pytest.mark.row("X1")
def test_a_malicious_checkpoint_is_refused_by_whatever_reads_checkpoints(
    state: dict[str, Any],
    trained: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    medgen: Run,
    name: str,
) -> None:
    data, canary = PAYLOADS[name](state, tmp_path / "canary"), tmp_path / "canary"
    (tmp_path / "evil.pt").write_bytes(data)
    new = medgen(
        "train",
        "bravo_rflow",
        *tiny,
        f"training.init_from={tmp_path}/evil.pt",
        f"run.dir={tmp_path}/new",
    )
    shutil.copytree(trained / "bravo", tmp_path / "run")
    for file in ("latest.pt", "prev.pt"):
        (tmp_path / "run" / file).write_bytes(data)
    resumed = medgen("train", "--resume", tmp_path / "run")
    assert (new.code, resumed.code) == (4, 4), (new.err, resumed.err)
    assert not canary.exists()


UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "torch.jit.load", "torch.hub.load",
    "joblib.load", "dill.load", "dill.loads", "pandas.read_pickle", "tempfile.mktemp", "zipfile.ZipFile.extractall",
}  # fmt: skip


GIVEN_AS_CODE = {"plugins/medgen_builtins/features/_torch_file.py"}
"""A user names such a file to have it run, and its plugin says that it is code."""


def unsafe(source: str) -> Iterator[str]:
    """What in a module's source could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if name in UNSAFE_CALLS or name.endswith(".extractall"):
            yield f"{node.lineno}: {name}"
        if name.endswith("torch.load") and given.get("weights_only") != "True":
            yield f"{node.lineno}: torch.load without weights_only=True"
        for key in ("allow_pickle", "shell", "weights_only"):
            if given.get(key, "True" if key == "weights_only" else "False") != (
                "True" if key == "weights_only" else "False"
            ):
                yield f"{node.lineno}: {key}={given[key]}"


@pytest.mark.row("X1")
def test_no_source_can_run_code_from_a_file() -> None:
    sources = [path for part in ("medgen", "plugins") for path in (ROOT / part).rglob("*.py")]
    assert len(sources) > 50
    found = {str(path.relative_to(ROOT)): list(unsafe(path.read_text())) for path in sources}
    assert {
        path: lines for path, lines in found.items() if lines and path not in GIVEN_AS_CODE
    } == {}


@pytest.mark.parametrize(
    "line",
    ["torch.load(x)", "torch.load(x, weights_only=False)", "torch.load(x, weights_only=safe)", "eval(x)", "exec(x)",
     "pickle.loads(x)", "yaml.load(x)", "os.system(x)", "np.load(x, allow_pickle=True)", "run(x, shell=True)",
     "archive.extractall(x)", "load(x, weights_only=False)"],
)  # fmt: skip
@pytest.mark.row("X1")
def test_the_check_of_sources_finds_what_it_looks_for(line: str) -> None:
    assert list(unsafe(line))


# Names that lead elsewhere

ELSEWHERE = ["../../x", "..", "/tmp/x", "a/b", ".hidden", "a\\b", "a\nb", "a\x1b[31m", "", "a\0b"]


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.row("X2")
def test_a_channel_of_a_checkpoint_never_names_a_file_elsewhere(
    state: dict[str, Any], tmp_path: Path, medgen: Run, name: str
) -> None:
    recipe = state["recipe"].replace(
        "[mode.bravo]", f"[mode.images]\nimages = [{json.dumps(name)}]\ncondition = []"
    )
    assert recipe != state["recipe"]
    (tmp_path / "evil.pt").write_bytes(sound(state | {"recipe": recipe}))
    ended = medgen(
        "generate",
        "--image-model",
        tmp_path / "evil.pt",
        "--num-images",
        1,
        "--output-dir",
        tmp_path / "out",
    )
    assert ended.code == 4, ended
    assert ended.err.isascii()
    assert "\x1b" not in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pt"]


@pytest.mark.parametrize("key", ["run.name", "run.folder", "mode.images.images"])
@pytest.mark.parametrize("value", ["../../x", "..", "/tmp/medgen-x", "a\x1bb"])
@pytest.mark.row("X2")
def test_a_recipe_writes_nothing_outside_the_folder_of_runs(
    tiny: tuple[str, ...], tmp_path: Path, medgen: Run, key: str, value: str
) -> None:
    given = json.dumps([value] if key.startswith("mode") else value)
    root = tmp_path / "a/b/c/runs"
    ended = medgen(
        "train",
        "bravo_rflow",
        *tiny,
        "mode=images",
        f"run.root={root}",
        "training.steps=1",
        f"{key}={given}",
    )
    assert ended.code == 2, ended
    assert obeyed(ended.err) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row("X2")
def test_a_pair_is_never_written_through_a_link(trained: Path, tmp_path: Path, medgen: Run) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    models = (
        "--seg-model",
        trained / "seg/latest.pt",
        "--max-area",
        1,
        "--steps",
        1,
        "--batch-size",
        2,
    )
    command = ("generate", *models, "--num-images", 2, "--output-dir", out)
    assert medgen(*command).code == 0
    shutil.rmtree(out / "train/syn_00001")
    (out / "train/syn_00001").symlink_to(elsewhere)
    ended = medgen(*command)
    assert ended.code == 8
    assert "syn_00001: is a link" in ended.err
    assert list(elsewhere.iterdir()) == []


# What a terminal would obey

NASTY = "a\x1b[31m\x07\u202eb\x9bc"


def obeyed(text: str) -> list[str]:
    return [each for each in text if not each.isprintable() and each != "\n"]


@pytest.mark.row("X3")
def test_names_and_strings_are_escaped_wherever_they_are_shown(tmp_path: Path, medgen: Run) -> None:
    folder = tmp_path / NASTY
    folder.mkdir()
    recipe = folder / "x.toml"
    quoted = json.dumps(NASTY)
    recipe.write_text(
        f'extends = "bravo_rflow"\n[data]\nroot = {quoted}\n[data.files]\n{quoted} = {quoted}\n',
        "utf-8",
    )
    shown = [
        medgen("recipe", "show", recipe),
        medgen("train", recipe, "--dry-run"),
        medgen("train", recipe, f"training.{NASTY}=1"),
        medgen("train", recipe, f"strategy={NASTY}"),
        medgen("train", f"{NASTY}.toml"),
        medgen("train", "--resume", folder),
        medgen(
            "generate", "--image-model", folder / "no.pt", "--num-images", 1, "--output-dir", folder
        ),
        medgen("generate", f"--{NASTY}"),
        medgen("plugins", "show", NASTY),
        medgen("recipe", "show", recipe, "--only", NASTY),
        medgen("data", "prepare", recipe),
        medgen(NASTY),
    ]
    assert [each.code for each in shown[:1]] == [0]
    assert all(each.code for each in shown[1:])
    for each in shown:
        assert obeyed(each.out + each.err) == []
        assert "Traceback" not in each.err


@pytest.mark.row("X3")
def test_a_recipe_that_is_shown_still_loads(tmp_path: Path, medgen: Run) -> None:
    (tmp_path / "x.toml").write_text(
        f'extends = "bravo_rflow"\n[data.files]\nbravo = {json.dumps(NASTY)}\n', "utf-8"
    )
    (tmp_path / "y.toml").write_text(medgen("recipe", "show", tmp_path / "x.toml").out, "utf-8")
    assert (
        medgen("recipe", "show", tmp_path / "y.toml").out
        == medgen("recipe", "show", tmp_path / "x.toml").out
    )


@pytest.mark.row("X3")
def test_the_path_of_a_result_is_escaped(trained: Path, tmp_path: Path, medgen: Run) -> None:
    models = ("--seg-model", trained / "seg/latest.pt", "--max-area", 1, "--steps", 1)
    ended = medgen("generate", *models, "--num-images", 1, "--output-dir", tmp_path / NASTY)
    assert ended.code == 0
    assert obeyed(ended.out + ended.err) == []
    assert obeyed((tmp_path / NASTY / "manifest.jsonl").read_text()) == []


# The network, and the environment


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80), ("example.org", 443)])
@pytest.mark.row("X4")
def test_the_suite_fails_where_a_socket_leaves_this_machine(address: tuple[str, int]) -> None:
    kind = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with (
        socket.socket(kind, socket.SOCK_STREAM) as outside,
        pytest.raises(AssertionError, match="was opened"),
    ):
        outside.connect(address)


@pytest.mark.row("X4")
def test_a_socket_on_this_machine_is_fine() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as here,
        socket.create_connection(here.getsockname()) as there,
    ):
        assert there.getpeername() == here.getsockname()


@pytest.mark.row("X6")
def test_nothing_of_the_environment_is_written_but_what_is_on_the_list(
    tiny: tuple[str, ...], tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faults.scanning import find

    for name in ("AWS_SECRET", "SLURM_JWT", "HOME_OF_MINE", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    monkeypatch.setenv("SLURM_JOB_ID", "24160")
    run = tmp_path / "run"
    trained = server.run("train", "seg_rflow", *tiny, "training.steps=2", f"run.dir={run}")
    models = ("--seg-model", run / "latest.pt", "--max-area", 1, "--steps", 1)
    made = server.run("generate", *models, "--num-images", 2, "--output-dir", tmp_path / "out")
    assert (trained.code, made.code) == (0, 0)
    for printed in (trained, made):
        assert CANARY not in printed.out + printed.err
    assert find(tmp_path, [CANARY.encode()]) == []
    assert json.loads((run / "metadata.json").read_text())["environment"]["SLURM_JOB_ID"] == "24160"
    assert os.environ["AWS_SECRET"]
