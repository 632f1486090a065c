"""Several ranks: they train what one process trains, and go on in any number.

Covers: medgen.ranks.collectives, medgen.ranks.ddp, medgen.ranks.place, medgen.ranks.process_group,
medgen.ranks.rendezvous.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from faults import ranks
from faults.forkserver import HANG, Server, differences
from PIL import Image

from medgen.errors import RankError, RecipeError
from medgen.ranks import collectives, ddp, place, process_group, rendezvous
from medgen.ranks.place import Place
from medgen.run.run import TrainingRun

SMALL = (
    "network.unet.channels=[8,8]",
    "network.unet.attention=[false,false]",
    "callbacks.previews=false",
    "callbacks.tensorboard=false",
    "training.epoch_steps=8",
)
VARIANTS = {
    "bravo_rflow": ("training.accumulate=2", "callbacks.ema.decay=0.9"),
    "seg_ddpm": (
        "losses.mse=false",
        "losses.min_snr.gamma=5",
        'mode.seg.numbers=["position"]',
    ),
    "bravo_rflow_3d": ("training.accumulate=2",),
    "vae_bravo": (
        "network=autoencoder",
        "network.autoencoder.channels=[8,8]",
        "network.autoencoder.num_res_blocks=1",
        "losses.perceptual=false",
        "strategy.vae.discriminator.start_step=5",
        "strategy.vae.discriminator.channels=8",
        "training.warmup_steps=0",
        "training.accumulate=2",
    ),
}
VARIANTS["vae_bravo_3d"] = (*VARIANTS["vae_bravo"], "data.spacing=0", "data.patch_size=8")
"""To try another kind of training, add a line."""
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def measured(folder):
    """Losses, norms and validations by step and name."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("loss", "grad", "psnr", "mse")
    return {
        (line["step"], name): line[name] for line in lines for name in line if name.startswith(kept)
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.endswith("_3d") else [])
        for name in VARIANTS
    ],
)
def test_two_ranks_have_the_losses_of_one_process_at_each_step(name, server, tiny, tmp_path):
    common = (name, *tiny, *SMALL, *VARIANTS[name], "training.steps=10")
    assert server.run("train", *common, f"run.dir={tmp_path}/one").code == 0
    first, second = ranks.run(server, "train", *common, f"run.dir={tmp_path}/two")
    assert (first.code, second.code, second.out + second.err) == (0, 0, ""), first.err + second.err
    one, two = measured(tmp_path / "one"), measured(tmp_path / "two")
    assert len(one) > 10 * 3
    assert one.keys() == two.keys()
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-5)
    assert list((tmp_path / "two").glob(".rank-*")) == []


def test_a_run_goes_on_with_another_number_of_ranks(server, tiny, tmp_path):
    """One process until step 7, two ranks until 14, one process to the end."""
    common = ("bravo_rflow", *tiny, *SMALL, "training.steps=20")
    assert server.run("train", *common, f"run.dir={tmp_path}/whole").code == 0
    folder = tmp_path / "r"
    assert server.run("train", *common, f"run.dir={folder}", hook=stop_at, given=(0, 7)).code == 75
    both = ranks.run(server, "train", "--resume", folder, hook=stop_at, given=(14,))
    assert [each.code for each in both] == [75, 0], both
    assert "at step 15, saved" in both[0].err  # all ranks learn of it one step later
    assert server.run("train", "--resume", folder).code == 0
    one, other = measured(tmp_path / "whole"), measured(folder)
    assert one.keys() == other.keys()
    assert list(other.values()) == pytest.approx(list(one.values()), rel=1e-3)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_that_were_stopped_and_resumed_equal_those_that_were_not(
    count, server, tiny, tmp_path
):
    """With three or more, a sum over the ranks depends on the order in which it is taken."""
    common = (
        "bravo_rflow",
        *tiny,
        *SMALL,
        "training.batch_size=6",
        "training.steps=12",
        "network.unet.dropout=0.1",
    )
    whole = ranks.run(server, "train", *common, f"run.dir={tmp_path}/whole", count=count)
    assert [each.code for each in whole] == [0] * count
    stopped = ranks.run(
        server, "train", *common, f"run.dir={tmp_path}/r", hook=stop_at, given=(4,), count=count
    )
    assert [each.code for each in stopped] == [75, *[0] * (count - 1)]
    resumed = ranks.run(server, "train", "--resume", tmp_path / "r", count=count)
    assert [each.code for each in resumed] == [0] * count
    assert differences(tmp_path / "whole", tmp_path / "r") == []


def stop_at(rank: int, step: int) -> None:
    """Ask for an end after a step; the last rank alone."""
    from medgen.training.trainer import Trainer

    real = Trainer.step

    def stopping(self):
        record = real(self)
        if self.run.step == step and rank == collectives.size() - 1:
            self.run.stop("SIGTERM")
        return record

    Trainer.step = stopping


def totals(rank: int, folder: Path) -> None:
    """Write down a sum over the ranks, and that of the same values at other places."""
    torch.distributed.init_process_group("gloo")
    values = torch.randn(300, generator=torch.Generator().manual_seed(rank))
    moved = collectives.all_reduce_sum(values.roll(100)).roll(-100)
    torch.save((collectives.all_reduce_sum(values), moved), folder / f"{rank}.pt")


def test_a_sum_over_the_ranks_does_not_depend_on_what_else_is_summed(server, tmp_path):
    three = ranks.run(server, "recipe", "list", count=3, hook=totals, given=(tmp_path,))
    assert [each.code for each in three] == [0, 0, 0]
    sums = [each for rank in range(3) for each in torch.load(tmp_path / f"{rank}.pt")]
    assert all(torch.equal(sums[0], each) for each in sums)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("bravo_rflow", {"samples", "trajectory"}), ("vae_bravo", {"reconstructions"})],
)
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_share_the_previews_and_make_those_of_one_process(
    count, name, kinds, server, tiny, tmp_path
):
    """Of two samples a third rank has none."""
    shown = [
        each
        for each in (*tiny, *SMALL, *VARIANTS.get(name, ()))
        if each != "callbacks.previews=false"
    ]
    common = (name, *shown, "training.accumulate=1", "training.batch_size=6", "training.steps=2")
    assert server.run("train", *common, f"run.dir={tmp_path}/one").code == 0
    several = ranks.run(
        server,
        "train",
        *common,
        f"run.dir={tmp_path}/all",
        count=count,
        hook=counting,
        given=(tmp_path,),
    )
    assert [each.code for each in several] == [0] * count, several
    assert [int((tmp_path / f"{rank}").read_text()) for rank in range(count)] == [1] * count
    paths = {each.stem.split("_")[0]: each for each in (tmp_path / "one/previews").iterdir()}
    assert set(paths) == kinds
    for path in paths.values():
        one, other = (
            np.asarray(Image.open(each), int)
            for each in (path, tmp_path / "all/previews" / path.name)
        )
        assert one.std() > 5
        assert np.abs(one - other).max() <= 2


def counting(rank: int, folder: Path) -> None:
    """Write down how many samples a rank's share of the previews has at most."""
    from medgen_builtins.callbacks._previews import Previewing

    real = Previewing._rows

    def rows(self):
        made = real(self)
        (folder / f"{rank}").write_text(str(len(made)))
        return made

    Previewing._rows = rows


@pytest.mark.slow
def test_two_nodes_train_together(tiny, tmp_path):
    """Two agents of torchrun on one machine, each with a rank."""
    port = ranks.free_port()
    meeting = (
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}",
    )
    options = (
        "bravo_rflow",
        *tiny,
        *SMALL,
        "training.steps=3",
        "training.validate_every=0",
        f"run.dir={tmp_path}/r",
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *meeting,
        "--local-addr=127.0.0.1",
        "-m",
        "medgen",
    ]
    paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "plugins")))
    given = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    nodes = [
        subprocess.Popen(
            [*command, "train", *options],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    said = [each.communicate(timeout=2 * HANG)[0].decode() for each in nodes]
    assert [each.returncode for each in nodes] == [0, 0], said
    assert [f"run      {tmp_path}/r" in each for each in said].count(True) == 1
    assert len((tmp_path / "r/metrics.jsonl").read_text().splitlines()) == 3


def test_a_batch_that_the_ranks_cannot_share_is_a_mistake_of_the_recipe(
    medgen, tiny, server, tmp_path
):
    given = ("train", "bravo_rflow", *tiny, "training.steps=1", f"run.dir={tmp_path}/r")
    result = medgen(*given, "--devices", 3)
    wrong = "medgen: training.batch_size: got 4, expected a multiple of 3 devices x training.accumulate = 1."
    assert (result.code, result.err) == (2, f"{wrong} Change one of them.\n")
    three = ranks.run(server, *given, count=3)
    assert sorted(each.code for each in three) == [2, 9, 9]
    assert "".join(each.err for each in three) == result.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_ranks_have_each_row_of_each_part_once(parts, monkeypatch):
    monkeypatch.setattr(ddp, "size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(ddp, "rank", lambda rank=rank: rank)
        shares.append(ddp.local_rows(12, parts).reshape(parts, -1))
    together = np.concatenate(shares, axis=1)
    assert np.array_equal(np.sort(together, axis=1), np.arange(12).reshape(parts, -1))


def test_a_place_is_what_torchrun_or_srun_say_and_a_batch_script_has_none():
    torchrun = {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    srun = {**script, "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}
    assert place.place(torchrun) == Place(3, 4, 1)
    assert place.place(srun) == Place(2, 4, 0)
    assert place.place(script) is None
    assert place.place({**srun, "RANK": "3", "WORLD_SIZE": "4"}) == Place(3, 4, 3)
    assert place.place({}) is None


MET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "alone", [{"RANK": "3"}, {"WORLD_SIZE": "4"}, {"RANK": "", "WORLD_SIZE": ""}, MET]
)
def test_variables_of_torch_that_name_no_place_are_ignored(alone):
    """Point 19."""
    assert place.place(alone) is None
    assert place.place({"RANK": "0", "WORLD_SIZE": "1"}) == Place(0, 1, 0)


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ({"RANK": "3", "WORLD_SIZE": "4"}, "got 3 and 4, but no MASTER_ADDR and no MASTER_PORT"),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"},
            "got 3 and 4, but no MASTER_PORT",
        ),
        (
            {"RANK": "4", "WORLD_SIZE": "4", **MET},
            "got 4 and 4, expected a rank from 0 and below the size",
        ),
        ({"RANK": "-1", "WORLD_SIZE": "4", **MET}, "got -1 and 4, expected a rank"),
        ({"RANK": "x", "WORLD_SIZE": "4", **MET}, "RANK: got 'x', expected an integer"),
        (
            {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "x", **MET},
            "LOCAL_RANK: got 'x', expected an integer",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "generate"])
def test_variables_that_another_job_left_are_named_in_one_line(
    left, says, command, medgen, monkeypatch, tmp_path
):
    """Point 19: alone, such a process would train, or generate a fourth of the pairs, without a word."""
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    more = (
        ("bravo_rflow", f"run.dir={tmp_path}/r")
        if command == "train"
        else ("--num-images", 4, "--output-dir", "o")
    )
    result = medgen(command, *more)
    assert result.code == 2
    [line] = result.err.splitlines()
    assert says in line
    assert "Unset" in line


@pytest.mark.parametrize(
    ("meeting", "says"),
    [
        ({"MASTER_ADDR": "no-such-host.invalid"}, r"at no-such-host\.invalid:\d+ \(.*[Nn]ame.*\)"),
        ({"MASTER_ADDR": "127.0.0.1"}, r"rank 0 of 2: could not join .*\d+ \(.*[Tt]imed out"),
    ],
)
def test_a_rank_that_cannot_join_says_where_and_what_to_look_at(
    meeting, says, server, tiny, tmp_path, monkeypatch
):
    place = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_PORT": str(ranks.free_port()),
    }
    for name, value in {**place, **meeting}.items():
        monkeypatch.setenv(name, value)
    short = ("training.steps=1", "distributed.timeout=1", f"run.dir={tmp_path}/r")
    alone = server.run("train", "bravo_rflow", *tiny, *SMALL, *short, hook=impatient)
    told = [line for line in alone.err.splitlines() if line.startswith("medgen: ")]
    assert (alone.code, len(told)) == (9, 1), alone
    assert re.search(says, told[0])
    assert "See that all were started" in told[0]


def impatient() -> None:
    """A rank has no more time than the watch."""
    process_group.AFTER = 0.0


def test_a_task_of_srun_that_is_told_the_first_node_finds_the_port(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    assert rendezvous.variables() == {"MASTER_ADDR": "node7", "MASTER_PORT": "20077"}


@pytest.mark.parametrize("address", ["", "  ", None])
@pytest.mark.parametrize("port", ["", None])
def test_an_empty_meeting_place_is_none_and_a_task_of_srun_finds_it(address, port, monkeypatch):
    for name, value in {"MASTER_ADDR": address, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(
            name, raising=False
        )
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    assert rendezvous.variables() == {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "20077"}


TASK = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "1",
}


@pytest.mark.parametrize(
    ("variables", "code", "says"),
    [
        ({"MASTER_PORT": "abc"}, 2, "MASTER_PORT: got 'abc', expected an integer. Unset it"),
        ({"MASTER_PORT": "0"}, 2, "MASTER_PORT: got 0, expected a port from 1 to 65535. Unset it"),
        ({"MASTER_PORT": "65536"}, 2, "MASTER_PORT: got 65536, expected a port"),
        ({"MASTER_PORT": "-1"}, 2, "MASTER_PORT: got -1, expected a port"),
        (
            {"MASTER_ADDR": "no such host"},
            9,
            "rank 0 of 2: could not join the others at no such host:20000 (",
        ),
        ({"MASTER_ADDR": "a" * 300}, 9, "rank 0 of 2: could not join the others at aaa"),
        ({"SLURM_JOB_ID": "x"}, 2, "SLURM_JOB_ID: got 'x', expected an integer"),
        ({"SLURM_STEP_ID": "batch"}, 2, "SLURM_STEP_ID: got 'batch', expected an integer"),
        (
            {"SLURM_PROCID": "2"},
            2,
            "got 2, 2 and 0, expected a rank from 0 and below the size. Unset them",
        ),
        ({"SLURM_PROCID": "-1"}, 2, "got -1, 2 and 0, expected a rank"),
        ({"SLURM_LOCALID": "-1"}, 2, "got 0, 2 and -1, expected a rank"),
        ({"SLURM_STEP_NUM_TASKS": "2x"}, 2, "SLURM_STEP_NUM_TASKS: got '2x', expected an integer"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1", **MET},
            2,
            "LOCAL_RANK: got -1, expected an integer from",
        ),
        (
            {"SLURM_STEP_NUM_NODES": "x", "SLURM_STEP_NODELIST": "b["},
            9,
            "`scontrol show hostnames b[` failed (",
        ),
    ],
)
def test_garbage_in_what_srun_and_torchrun_say_is_one_line(
    variables, code, says, medgen, tiny, tmp_path, monkeypatch
):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    for name, value in {**TASK, **variables}.items():
        monkeypatch.setenv(name, value)
    ended = medgen("train", "bravo_rflow", *tiny, "training.steps=1", f"run.dir={tmp_path}/r")
    [line] = ended.err.splitlines()
    assert (ended.code, line.startswith("medgen: "), says in line) == (code, True, True), line
    assert "bug" not in line


def test_a_list_of_nodes_without_a_name_is_one_line(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=" "))
    with pytest.raises(
        RankError, match=r"failed \(it names none\)\. Set MASTER_ADDR to the first node\."
    ):
        rendezvous.variables()


def test_the_interface_is_the_one_on_the_way_to_the_other_host():
    """None where that would be loopback."""
    assert rendezvous.interface("127.0.0.1") is None


@pytest.mark.parametrize(("local", "seen", "taken"), [(1, 2, 1), (1, 1, 0), (5, 4, 1)])
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one_that_it_sees(
    local, seen, taken, monkeypatch
):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    place.take_device(Place(local, 8, local))
    assert chosen == [taken]


@pytest.mark.parametrize(
    ("uuids", "expected"),
    [
        ("abc", nullcontext()),
        ("aba", pytest.raises(RecipeError, match="3 processes have 2 GPUs between them")),
    ],
)
def test_ranks_that_would_share_a_gpu_are_refused(uuids, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[0])
    )
    monkeypatch.setattr(process_group, "size", lambda: len(uuids))
    monkeypatch.setattr(process_group, "broadcast_object", lambda mine, source: uuids[source])
    with expected:
        process_group._check_apart()


COLLECTIVE = {
    "broadcast_object", "on_rank_zero", "barrier", "all_reduce_sum", "all_reduce_selected", "all_gather_rows",
    "first_on_node", "first_stop_reason", "stop_agreed", "save", "flush",
}  # fmt: skip
ASKED = {"is_rank_zero", "rank"}


FILES = {"checkpoint", "pictures"}
"""Modules that also have a `save`, of a file."""


def test_the_lint_knows_collectives_by_the_names_they_have():
    known = {*vars(collectives), *vars(TrainingRun)}
    assert known >= COLLECTIVE | ASKED


def collectives_for_some(tree: ast.AST) -> list[int]:
    """Lines of collective calls that only some ranks come to: in a branch, or after one that returns."""
    nodes = [
        each
        for each in ast.walk(tree)
        if isinstance(each, (ast.If, ast.IfExp)) and _names(each.test) & ASKED
    ]
    for body in (
        each.body for each in ast.walk(tree) if isinstance(getattr(each, "body", None), list)
    ):
        left = [
            n
            for n, each in enumerate(body)
            if each in nodes and isinstance(each.body[-1], (ast.Return, ast.Raise))
        ]
        nodes += body[left[0] + 1 :] if left else []
    calls = [each for node in nodes for each in ast.walk(node) if isinstance(each, ast.Call)]
    names = [(each.lineno, _names(each.func)) for each in calls]
    return [line for line, called in names if called & COLLECTIVE and not called & FILES]


def _names(tree: ast.AST) -> set[str]:
    return {getattr(each, "attr", getattr(each, "id", "")) for each in ast.walk(tree)}


@pytest.mark.row("D5")
def test_the_lint_finds_a_collective_that_only_some_ranks_call():
    assert collectives_for_some(ast.parse("if run.is_rank_zero:\n    run.save()")) == [2]
    assert collectives_for_some(
        ast.parse("if collectives.rank() == 0:\n    pass\nelse:\n    barrier()")
    ) == [4]
    assert collectives_for_some(
        ast.parse("def f(run):\n    if not run.is_rank_zero:\n        return\n    run.save()")
    ) == [4]
    assert (
        collectives_for_some(
            ast.parse("def f(run):\n    run.save()\n    if not run.is_rank_zero:\n        return")
        )
        == []
    )


@pytest.mark.parametrize("folder", ["medgen", "plugins"])
@pytest.mark.row("D5")
def test_no_collective_is_called_by_some_ranks_only(folder):
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        assert collectives_for_some(ast.parse(path.read_text())) == [], path
