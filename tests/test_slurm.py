"""Jobs of a cluster, with commands that only say what they were asked: what is saved goes on, all else ends.

Covers: medgen_builtins.commands._slurm_submission.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faults.forkserver import HANG

from medgen.config import compatibility
from medgen.config.recipe import from_toml, load, public_toml

ROOT = Path(__file__).parents[1]
SCRIPTS = {name: ROOT / "slurm" / f"{name}.slurm" for name in ("train", "generate")}
MINE = "# The rest is the same"
JOB = 24160
FAKES = {
    "scontrol": 'echo "$*" >>"$LOGS/scontrol"',
    "srun": 'while [[ $1 == --* ]]; do echo "$1" >>"$LOGS/srun"; shift; done; exec "$@"',
    "medgen": 'printf "%s\\n" "$@" >"$LOGS/medgen"; exit "${CODE:-0}"',
    "sbatch": 'cat >"$LOGS/sbatch"; echo "Submitted batch job 7"',
}
SAVING = """
trap 'echo USR1 >>"$LOGS/signals"; sleep 0.5; echo saved >>"$LOGS/signals"; exit 75' USR1
trap 'echo TERM >>"$LOGS/signals"; exit 75' TERM
touch "$LOGS/ready"
while :; do sleep 0.05; done
"""
Run = Callable[..., Any]


class Cluster:
    """A folder of commands that stand for Slurm's and for medgen, and what they were asked."""

    def __init__(self, folder: Path):
        self.bin, self.logs = folder / "bin", folder / "logs"
        self.bin.mkdir()
        self.logs.mkdir()
        for name, text in FAKES.items():
            self.replace(name, text)

    def replace(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def environment(self, **more: object) -> dict[str, str]:
        own = {"PATH": f"{self.bin}:/usr/bin:/bin", "LOGS": self.logs, "SLURM_JOB_ID": JOB}
        return {name: str(value) for name, value in {**own, **more}.items()}

    def start(self, script: Path, *words: str, **more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(script), *words],
            env=self.environment(**more),
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: Path, *words: str, **more: object) -> tuple[int, str]:
        """The exit status and stderr of a job."""
        process = self.start(script, *words, **more)
        _, said = process.communicate(timeout=HANG)
        return process.returncode, said

    def asked(self, name: str) -> list[str]:
        """The lines that a command has logged."""
        log = self.logs / name
        return log.read_text().splitlines() if log.exists() else []

    def wait_for(self, name: str) -> None:
        limit = time.monotonic() + HANG
        while not (self.logs / name).exists():
            assert time.monotonic() < limit, f"never {name}"
            time.sleep(0.01)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("LOGS", str(made.logs))
    return made


@pytest.fixture
def written(tmp_path: Path, medgen: Run) -> Callable[..., Path]:
    """The script that `medgen slurm` prints for bravo_rflow with these overrides."""

    def write(*words: str) -> Path:
        ended = medgen("slurm", "bravo_rflow", *words)
        assert ended.code == 0, ended.err
        path = tmp_path / "job.slurm"
        path.write_text(ended.out)
        return path

    return write


def options(script: Path) -> list[str]:
    return [
        line.removeprefix("#SBATCH ")
        for line in script.read_text().splitlines()
        if line.startswith("#SBATCH ")
    ]


# The scripts


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.row("S5")
def test_a_script_asks_to_be_signalled_requeued_and_appended_to(name: str) -> None:
    asked = options(SCRIPTS[name])
    assert {"--signal=USR1@120", "--requeue", "--open-mode=append"} <= set(asked)
    subprocess.run(["bash", "-n", SCRIPTS[name]], check=True)


@pytest.mark.row("S5")
def test_both_scripts_end_alike() -> None:
    one, two = (path.read_text().partition(MINE)[2] for path in SCRIPTS.values())
    assert one == two != ""


@pytest.mark.parametrize("path", [*SCRIPTS.values(), ROOT / "tests/slurm/start"])
@pytest.mark.row("S5")
def test_shellcheck_finds_nothing(path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-s", "bash", path],
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("code", [0, 1, 2, 3, 6, 7, 9, 10, 12, 75, 130, 137])
@pytest.mark.row("S5")
def test_only_75_queues_the_job_again_and_the_status_is_medgens(
    name: str, code: int, cluster: Cluster
) -> None:
    status, said = cluster.run(SCRIPTS[name], "x", CODE=code)
    assert status == code, said
    assert cluster.asked("scontrol") == ([f"requeue {JOB}"] if code == 75 else [])


@pytest.mark.row("S5")
def test_the_script_of_a_recipe_does_the_same(
    cluster: Cluster, written: Callable[..., Path]
) -> None:
    for code in (0, 6, 75):
        assert cluster.run(written(), CODE=code)[0] == code
    assert cluster.asked("scontrol") == [f"requeue {JOB}"]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.row("S5")
def test_a_signal_to_the_shell_reaches_medgen_and_the_shell_waits_until_it_has_saved(
    name: str, cluster: Cluster
) -> None:
    cluster.replace("medgen", SAVING)
    process = cluster.start(SCRIPTS[name], "x")
    cluster.wait_for("ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(HANG) == 75
    assert cluster.asked("signals") == ["USR1", "saved"]
    assert cluster.asked("scontrol") == [f"requeue {JOB}"]


@pytest.mark.row("S5")
def test_several_signals_to_the_shell_do_not_make_it_leave_its_child(cluster: Cluster) -> None:
    cluster.replace(
        "medgen",
        "trap : USR1; touch $LOGS/ready; until [ -e $LOGS/enough ]; do sleep 0.05; done; exit 6",
    )
    process = cluster.start(SCRIPTS["train"], "x")
    cluster.wait_for("ready")
    for _ in range(5):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    (cluster.logs / "enough").touch()
    assert process.wait(HANG) == 6


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.row("S5")
def test_a_job_that_is_cancelled_stays_so_although_all_is_saved(
    name: str, cluster: Cluster
) -> None:
    cluster.replace("medgen", 'echo "$$" >"$LOGS/pid"' + SAVING)
    process = cluster.start(SCRIPTS[name], "x")
    cluster.wait_for("ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None, "it left its child"
    os.kill(int(cluster.asked("pid")[0]), signal.SIGTERM)  # as Slurm does: each of them gets one
    assert process.wait(HANG) == 75
    assert cluster.asked("signals") == ["TERM"]
    assert cluster.asked("scontrol") == []
    assert process.stderr
    assert process.stderr.read().startswith(
        f"medgen: job {JOB}: was asked to end (SIGTERM: scancel, the time limit or another job), and ended with exit "
    )


@pytest.mark.parametrize(
    ("count", "again"), [("", True), (0, True), (49, True), (50, False), (51, False)]
)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.row("S5")
def test_a_chain_of_jobs_ends(name: str, count: int | str, again: bool, cluster: Cluster) -> None:
    given = {} if count == "" else {"SLURM_RESTART_COUNT": count}
    status, said = cluster.run(SCRIPTS[name], "x", CODE=75, **given)
    assert status == 75
    assert bool(cluster.asked("scontrol")) is again
    assert (
        again or f"job {JOB}: queued again {count} times, no more. Submit it anew to go on." in said
    )


@pytest.mark.row("S5")
def test_the_recipe_says_where_the_chain_ends(
    cluster: Cluster, written: Callable[..., Path]
) -> None:
    script = written("slurm.restarts=2")
    cluster.run(script, CODE=75, SLURM_RESTART_COUNT=2)
    assert cluster.asked("scontrol") == []
    cluster.run(script, CODE=75, SLURM_RESTART_COUNT=1)
    assert cluster.asked("scontrol") == [f"requeue {JOB}"]


@pytest.mark.row("S5")
def test_the_requeued_job_finds_the_folder_of_the_first(cluster: Cluster) -> None:
    asked = []
    for count in (0, 1):
        cluster.run(SCRIPTS["train"], "bravo_rflow", "training.steps=9", SLURM_RESTART_COUNT=count)
        asked.append(cluster.asked("medgen"))
    assert asked[0] == asked[1]
    assert asked[0] == ["train", "bravo_rflow", f"run.dir=runs/slurm/{JOB}", "training.devices=1", "training.steps=9",
                        "--resume", "auto"]  # fmt: skip


@pytest.mark.row("S5")
def test_every_word_arrives_as_it_is(cluster: Cluster, written: Callable[..., Path]) -> None:
    words = ["my recipes/a b.toml", "data.root=/data/of me/*", "run.name=`id` $x \"'y"]
    cluster.run(SCRIPTS["train"], *words)
    asked = cluster.asked("medgen")
    assert [asked[1], *asked[4:6]] == words
    cluster.run(SCRIPTS["generate"], "--seg-model", "a b/c.pt", "--output-dir", "o  o")
    assert cluster.asked("medgen")[:5] == [
        "generate",
        "--seg-model",
        "a b/c.pt",
        "--output-dir",
        "o  o",
    ]
    cluster.run(written(*words[1:]))
    assert cluster.asked("medgen")[4:6] == words[1:]


@pytest.mark.row("S5")
def test_each_task_has_its_cores_and_none_ends_the_others(cluster: Cluster) -> None:
    cluster.run(SCRIPTS["train"], "x", SLURM_CPUS_PER_TASK=6, SLURM_NTASKS_PER_NODE=4)
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=0"} <= set(cluster.asked("srun"))
    assert "training.devices=4" in cluster.asked("medgen")


@pytest.mark.parametrize(
    ("array", "shard"),
    [
        ({}, "1/1"),
        ({"ID": 0, "MIN": 0, "MAX": 7, "COUNT": 8, "STEP": 1}, "1/8"),
        ({"ID": 7, "MIN": 0, "MAX": 7, "COUNT": 8, "STEP": 1}, "8/8"),
        ({"ID": 4, "MIN": 1, "MAX": 4, "COUNT": 4, "STEP": 1}, "4/4"),
        ({"ID": 6, "MIN": 2, "MAX": 6, "COUNT": 3, "STEP": 2}, "3/3"),
    ],
)
@pytest.mark.row("S5")
def test_an_array_shares_the_pairs(array: Mapping[str, int], shard: str, cluster: Cluster) -> None:
    given = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    cluster.run(SCRIPTS["generate"], "--num-images", "9", **given)
    assert cluster.asked("medgen") == ["generate", "--num-images", "9", "--shard", shard]


@pytest.mark.row("S5")
def test_an_array_with_gaps_is_refused(cluster: Cluster) -> None:
    """Of `--array=1,3,7` the task 7 would be the seventh of three."""
    given = {
        f"SLURM_ARRAY_TASK_{name}": value
        for name, value in {"ID": 7, "MIN": 1, "MAX": 7, "COUNT": 3}.items()
    }
    status, said = cluster.run(SCRIPTS["generate"], "--num-images", "9", **given)
    assert (status, cluster.asked("medgen")) == (2, [])
    assert "the tasks must be a range without gaps" in said


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.row("S5")
def test_a_script_without_arguments_says_how_it_is_used(name: str, cluster: Cluster) -> None:
    status, said = cluster.run(SCRIPTS[name])
    assert status not in (0, 75)
    assert "usage: sbatch" in said
    assert cluster.asked("medgen") == []


ENDS = {
    0: "",
    1: f"medgen: job {JOB}: ended with exit code 1; the lines above say why. It is not queued again. Mend the cause",
    9: f"medgen: job {JOB}: ended with exit code 9;",
    75: f"medgen: job {JOB}: stopped, all is saved (exit code 75). It is queued again, 1 of at most 50 times.",
    137: f"medgen: job {JOB}: was killed by SIGKILL (exit code 137), as is what takes more memory",
    138: f"medgen: job {JOB}: was killed by SIGUSR1 (exit code 138), the notice of the time limit",
    139: f"medgen: job {JOB}: was killed by SIGSEGV (exit code 139). It is not queued again.",
    255: f"medgen: job {JOB}: ended with exit code 255;",
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("code", ENDS)
def test_every_end_of_a_job_is_one_line_of_its_log(
    name: str, code: int, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """Point 0."""
    _, said = cluster.run(SCRIPTS[name], "x", CODE=code)
    assert said.startswith(ENDS[code])
    assert len(said.splitlines()) == (1 if code else 0)
    printed = capfd.readouterr().out.splitlines()
    assert printed[0].startswith(f"medgen: job {JOB}: begins on ")
    assert printed[1:] == ([] if code else [f"medgen: job {JOB}: done (exit code 0)."])


def test_a_job_that_cannot_be_queued_again_says_why_and_how_to_go_on(cluster: Cluster) -> None:
    """Point 0."""
    cluster.replace(
        "scontrol", "echo 'Requested operation is'; echo 'presently disabled' >&2; exit 1"
    )
    status, said = cluster.run(SCRIPTS["train"], "x", "run.dir=my runs/a", CODE=75)
    assert status == 75
    assert said.splitlines()[-1] == (
        f"medgen: job {JOB}: could not be queued again: Requested operation is presently disabled. "
        "To go on, submit it again with run.dir=my\\ runs/a."
    )


def test_a_job_without_srun_and_one_without_medgen_say_so(cluster: Cluster) -> None:
    """Point 0."""
    (cluster.bin / "medgen").unlink()
    status, said = cluster.run(SCRIPTS["train"], "x")
    assert status in (126, 127)
    assert (
        f"medgen: job {JOB}: has no medgen on its PATH (exit code {status}): activate its environment"
        in said
    )
    cluster.replace("medgen", "true")
    (cluster.bin / "srun").unlink()
    status, said = cluster.run(SCRIPTS["train"], "x", PATH=f"{cluster.bin}:/bin")
    assert f"medgen: job {JOB}: ended with exit code {status}; the lines above say why." in said


def test_a_script_that_ends_early_says_so(cluster: Cluster, written: Callable[..., Path]) -> None:
    """Point 0."""
    _, said = cluster.run(SCRIPTS["generate"], "x", SLURM_ARRAY_TASK_MIN=1, SLURM_ARRAY_TASK_MAX=7)
    assert (
        f"medgen: job {JOB}: its script ended early (exit code 2). It is not queued again." in said
    )
    status, said = cluster.run(written('slurm.setup=["cd .; exit 4"]'))
    assert (status, cluster.asked("medgen")) == (4, [])
    assert (
        said == f"medgen: job {JOB}: slurm.setup ended it (exit code 4). It is not queued again.\n"
    )


def test_what_fails_in_the_set_up_is_named_and_what_fails_in_a_file_that_it_sources_is_not(
    cluster: Cluster, written: Callable[..., Path], tmp_path: Path
) -> None:
    """Point 15."""
    (tmp_path / "activate").write_text("false\ntrue\n")
    setup = [
        f"source {tmp_path}/activate",
        "[ -f nowhere ] && source nowhere",
        "if true; then",
        "nosuch load x",
        "fi",
    ]
    status, said = cluster.run(written(f"slurm.setup={setup}".replace("'", '"')))
    assert status == 0
    [told] = [line for line in said.splitlines() if line.startswith("medgen: ")]
    assert told == f"medgen: job {JOB}: slurm.setup: nosuch load x: exit code 127. The job goes on."


@pytest.mark.parametrize("name", SCRIPTS)
def test_tasks_have_the_environment_of_the_script_whatever_sbatch_was_told(
    name: str, cluster: Cluster
) -> None:
    """Point 15: srun takes SLURM_EXPORT_ENV, which sbatch --export=NONE sets, for its own --export."""
    cluster.run(SCRIPTS[name], "x", SLURM_EXPORT_ENV="NONE")
    assert "--export=ALL" in cluster.asked("srun")


def test_a_task_of_an_array_queues_itself_again_and_not_all_the_others(cluster: Cluster) -> None:
    """Point 15: one of the tasks has the id of the whole array."""
    array = {"ID": 2, "MIN": 0, "MAX": 2, "COUNT": 3}
    given = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    cluster.run(SCRIPTS["generate"], "x", CODE=75, SLURM_ARRAY_JOB_ID=JOB, **given)
    cluster.run(SCRIPTS["generate"], "x", CODE=75, SLURM_ARRAY_JOB_ID=JOB - 1, **given)
    assert cluster.asked("scontrol") == [f"requeue {JOB}_2", f"requeue {JOB}"]


@pytest.mark.parametrize(("known", "shard"), [("N/A   ", "1/1"), ("4   ", "4/8"), ("", "4/8")])
def test_a_job_that_a_task_of_an_array_submits_makes_all_pairs(
    known: str, shard: str, cluster: Cluster
) -> None:
    """Point 15: it inherits the variables of the array, though Slurm knows of none."""
    cluster.replace("squeue", f"echo '{known}'")
    array = {"ID": 3, "MIN": 0, "MAX": 7, "COUNT": 8}
    given = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    cluster.run(SCRIPTS["generate"], "x", SLURM_ARRAY_JOB_ID=7, **given)
    assert cluster.asked("medgen")[-1] == shard


# medgen slurm


@pytest.mark.row("S5")
def test_the_job_asks_for_what_the_recipe_says(written: Callable[..., Path]) -> None:
    asked = (
        "nodes=2",
        "hours=2.5",
        "memory=64G",
        "cpus=6",
        "gpu=a100",
        "partition=gpu",
        "account=neuro",
        "notice=300",
    )
    table = [f"slurm.{each}" for each in asked]
    script = written(
        "training.devices=4",
        *table,
        'slurm.options=["--constraint=ib"]',
        'slurm.setup=["module load x"]',
    )
    assert options(script) == [
        "--job-name=medgen-bravo_rflow", "--time=150", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=6",
        "--gpus-per-node=a100:4", "--mem=64G", "--partition=gpu", "--account=neuro", "--output=%x-%j.out",
        "--open-mode=append", "--requeue", "--signal=USR1@300", "--constraint=ib",
    ]  # fmt: skip
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines.index("module load x") < lines.index("set -u")


@pytest.mark.row("S5")
def test_what_the_recipe_leaves_open_is_left_to_the_cluster(written: Callable[..., Path]) -> None:
    asked = " ".join(options(written("slurm.gpu=none")))
    assert not any(word in asked for word in ("--mem", "--partition", "--account", "--gpus"))


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ((), f"runs/diffusion_2d/bravo/rflow_128_{JOB}"),
        (
            ("run.root=/my runs", "run.name=a$b_"),
            f"/my runs/diffusion_2d/bravo/a$b_rflow_128_{JOB}",
        ),
        (("run.folder={mode}",), f"runs/bravo_{JOB}"),
        (("run.dir=runs/a b",), "runs/a b"),
    ],
)
@pytest.mark.row("S5")
def test_the_folder_is_the_recipes_with_the_jobs_id(
    given: tuple[str, ...], folder: str, cluster: Cluster, written: Callable[..., Path]
) -> None:
    status, said = cluster.run(written(*given))
    assert status == 0, said
    assert cluster.asked("medgen")[2] == f"run.dir={folder}"


@pytest.mark.row("S5")
def test_nothing_in_a_recipe_is_run(
    cluster: Cluster, medgen: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a'; touch pwned; $(touch pwned) `touch pwned` #.toml"
    Path(name).write_text(
        'extends = "bravo_rflow"\nrun.name = "$(touch pwned)`touch pwned`\'; touch pwned; \'"'
    )
    Path("job").write_text(medgen("slurm", name, "data.root=$(touch pwned)").out)
    status, said = cluster.run(Path("job"))
    assert (status, said) == (0, "")
    assert cluster.asked("medgen")[1] == name
    assert not Path("pwned").exists()
    assert (
        options(Path("job"))[0]
        == "--job-name=medgen-a___touch_pwned____touch_pwned___touch_pwned___"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("slurm.hours=0", "slurm.hours: got 0, expected a number from 0.02 to 8760."),
        (
            "slurm.hours=0.03",
            "slurm.notice: got 120 s, expected at most half of the 120 s of a job",
        ),
        ("training.devices=3", "training.batch_size: got 16, expected a multiple of 3 devices"),
        ("slurm.nodes=3", "training.batch_size: got 16, expected a multiple of 3 devices"),
        ("slurm.hours=inf", "slurm.hours: "),
        ("slurm.partition=a b", "slurm.partition: "),
        ('slurm.account="a\\n#SBATCH --uid=0"', "slurm.account: "),
        ('slurm.setup=["a\\nb"]', "slurm.setup[0]: "),
        ('slurm.options=["-x"]', "slurm.options[0]: "),
        ('slurm.options=["--a\\nrm x"]', "slurm.options[0]: "),
        ('slurm.options=["--comment=it\'s"]', "slurm.options[0]: "),
        ("slurm.memory=lots", "slurm.memory: "),
        ("slurm.gpus=2", "Did you mean"),
        ("training.devices=0", "training.devices: "),
    ],
)
@pytest.mark.row("S5")
def test_what_no_job_can_have_is_refused(given: str, told: str, medgen: Run) -> None:
    ended = medgen("slurm", "bravo_rflow", given)
    assert ended.code == 2
    [line] = ended.err.splitlines()
    assert told in line


@pytest.mark.row("S5")
def test_a_file_name_that_is_no_line_is_refused(tmp_path: Path, medgen: Run) -> None:
    recipe = tmp_path / "a\nb.toml"
    recipe.write_text('extends = "bravo_rflow"')
    ended = medgen("slurm", recipe)
    assert ended.code == 2
    assert "has a character that cannot be printed" in ended.err


@pytest.mark.row("S5")
def test_submit_gives_sbatch_what_would_be_printed(
    cluster: Cluster, medgen: Run, written: Callable
) -> None:
    ended = medgen("slurm", "bravo_rflow", "--submit")
    assert (ended.code, ended.out) == (0, "Submitted batch job 7\n")
    assert (cluster.logs / "sbatch").read_text() == written().read_text()


def test_a_job_that_is_submitted_in_a_job_inherits_nothing_of_it(
    cluster: Cluster, medgen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Point 15."""
    inherited = (
        "SLURM_ARRAY_TASK_ID",
        "SLURM_RESTART_COUNT",
        "SLURM_JOB_ID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_MEM_PER_CPU",
    )
    for name in (*inherited, "SLURM_CONF", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "3")
    cluster.replace("sbatch", 'env >"$LOGS/env"; echo "Submitted batch job 7"')
    assert medgen("slurm", "bravo_rflow", "--submit").code == 0
    seen = {line.partition("=")[0] for line in cluster.asked("env")}
    assert seen.isdisjoint(inherited)
    assert {"SLURM_CONF", "SBATCH_PARTITION"} <= seen


@pytest.mark.row("S5")
def test_submit_says_in_a_line_that_sbatch_refused(cluster: Cluster, medgen: Run) -> None:
    cluster.replace(
        "sbatch", "echo 'sbatch: error: invalid partition' >&2; echo 'error: failed' >&2; exit 1"
    )
    ended = medgen("slurm", "bravo_rflow", "--submit")
    assert ended.code == 2
    [line] = ended.err.splitlines()
    assert line.startswith(
        "medgen: sbatch: refused the job (sbatch: error: invalid partition error: failed)."
    )


@pytest.mark.row("S5")
def test_submit_says_in_a_line_that_there_is_no_sbatch(
    medgen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    ended = medgen("slurm", "bravo_rflow", "--submit")
    assert ended.code == 2
    assert (
        ended.err
        == "medgen: sbatch: No such file or directory. Submit on a machine that has Slurm.\n"
    )


# The table


@pytest.mark.row("S5")
def test_what_a_job_asks_for_may_change_and_is_in_no_checkpoint(tmp_path: Path) -> None:
    one = load(
        "bravo_rflow",
        ["slurm.account=alice", 'slurm.setup=["source /home/alice/v"]', "training.devices=2"],
    )
    two = load("bravo_rflow", ["slurm.hours=1", "slurm.gpu=none"])
    compatibility.check(one, two, tmp_path)
    assert "alice" not in public_toml(one)
    assert from_toml(public_toml(one)).tables["slurm"] == load("bravo_rflow").tables["slurm"]
