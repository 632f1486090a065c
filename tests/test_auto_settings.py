"""What `auto` in a recipe becomes: chosen once, said, and kept with the run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import attrs
import pytest
import torch
from faults.variants import SMALL

from medgen.config.recipe import load
from medgen.errors import StoppedError
from medgen.generation import pair_writer
from medgen.run import auto_settings, checkpoint, folder
from medgen.run.assemble import assemble
from medgen.training import dry_run, sampling, session

CPU, GPU = torch.device("cpu"), torch.device("cuda")
INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512f avx512_vnni {}\nbugs\t\t: spectre_v1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {} sve\nCPU part\t: 0xd40\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that gives this machine a CPU with these words among its flags, which is faster in
    bf16 than in fp32 or not.
    """

    def become(words: str, text: str = INTEL, faster: bool = True) -> None:
        (tmp_path / "cpuinfo").write_text(text.format(words))
        monkeypatch.setattr(auto_settings, "CPU", tmp_path / "cpuinfo")
        monkeypatch.setattr(auto_settings, "faster_on_cpu", lambda: faster)

    become("")
    return become


@pytest.fixture
def auto(tiny):
    """The overrides of a tiny recipe that leaves its precision to medgen."""
    return (*(each for each in tiny if not each.startswith("training.precision")), *SMALL)


def precision(where: Path) -> str:
    """Of the recipe in a run's newest checkpoint."""
    [line] = [
        each
        for each in checkpoint.load(where)["recipe"].splitlines()
        if each.startswith("precision")
    ]
    return line.split('"')[1]


@pytest.mark.parametrize(
    ("words", "text", "able"),
    [
        ("", INTEL, False),
        ("avx512_bf16", INTEL, True),
        ("amx_bf16 amx_tile amx_int8", INTEL, True),
        ("avx512_bf16x", INTEL, False),
        ("i8mm bf16", ARM, True),
        ("i8mm", ARM, False),
        ("", "", False),
    ],
)
def test_bf16_is_chosen_where_the_cpu_has_units_for_it(words, text, able, machine):
    """Point 31."""
    machine(words, text)
    recipe = load("bravo_rflow", ["training.precision=auto"])
    assert auto_settings.has_bf16(CPU) is able
    assert auto_settings.settle(recipe, CPU).training.precision == ("bf16" if able else "fp32")


def test_units_that_are_slower_than_those_for_fp32_are_not_used(
    machine, auto, medgen, tmp_path, monkeypatch
):
    monkeypatch.setattr(dry_run, "MEASURED", 0.0)
    machine("avx512_bf16", faster=False)
    has = "as the CPU has units for bf16 that are slower than those for fp32"
    given = ("train", "bravo_rflow", *auto, "training.steps=1", "--dry-run")
    assert medgen(*given).out.splitlines()[0] == f"device   cpu, in fp32, {has}"
    asked = medgen(*given, "training.precision=bf16")
    [line] = [each for each in asked.err.splitlines() if "training.precision" in each]
    assert f"bf16 is slow here, {has}; use training.precision=auto or fp32." in line


def test_the_trial_takes_the_fastest_of_each_precision(monkeypatch):
    """A neighbour slows some turns, and never speeds one up."""
    auto_settings.faster_on_cpu.cache_clear()
    clock = iter(range(10**6))
    lasted = iter([9, 9, 5, 4, 5, 8, 7, 4, 5, 9, 9, 9])  # fp32 and bf16 in turn; the first warm up
    now = [0.0]

    def perf_counter() -> float:
        if next(clock) % 2:
            now[0] += next(lasted)
        return now[0]

    monkeypatch.setattr(auto_settings.time, "perf_counter", perf_counter)
    try:
        assert auto_settings.faster_on_cpu()
    finally:
        auto_settings.faster_on_cpu.cache_clear()


def test_the_trial_draws_no_random_numbers():
    """A run's own would else depend on the machine, and on whether it was begun or resumed."""
    auto_settings.faster_on_cpu.cache_clear()
    before = torch.get_rng_state()
    auto_settings.faster_on_cpu()
    assert torch.equal(torch.get_rng_state(), before)


def test_without_proc_a_cpu_has_no_units(monkeypatch, tmp_path):
    monkeypatch.setattr(auto_settings, "CPU", tmp_path / "none")
    assert not auto_settings.has_bf16(CPU)


@pytest.mark.parametrize("able", [True, False])
def test_bf16_is_chosen_where_the_gpu_has_units_for_it(able, monkeypatch):
    """Point 31: units, and not an emulation."""
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: able or including_emulation,
    )
    recipe = load("bravo_rflow", [])
    assert auto_settings.settle(recipe, GPU).training.precision == ("bf16" if able else "fp32")


def test_rank_0_chooses_for_all(machine, monkeypatch):
    monkeypatch.setattr(auto_settings.collectives, "on_rank_zero", lambda work: "bf16")
    assert auto_settings.settle(load("bravo_rflow", []), CPU).training.precision == "bf16"


@pytest.mark.parametrize("name", ["bravo_rflow", "demo_bravo", "vae_bravo", "demo_vae"])
def test_recipes_that_come_along_leave_it_to_the_machine(name, medgen):
    for layer in ((), ("--with", "cluster")):
        shown = medgen("recipe", "show", name, "--only", "training", *layer).out.splitlines()
        assert 'precision = "auto"' in shown


def test_the_first_line_says_what_was_chosen_and_why(machine, auto, medgen, tmp_path, monkeypatch):
    """Point 31."""
    monkeypatch.setattr(dry_run, "MEASURED", 0.0)
    result = medgen("train", "bravo_rflow", *auto, "training.steps=1", f"run.dir={tmp_path}/run")
    assert result.out.splitlines()[0] == "device   cpu, in fp32, as the CPU has no units for bf16"
    assert json.loads((tmp_path / "run/metadata.json").read_text())["precision"] == "fp32"
    machine("avx512_bf16")
    dry = medgen("train", "bravo_rflow", *auto, "training.steps=1", "--dry-run")
    assert dry.out.splitlines()[0] == "device   cpu, in bf16, as the CPU has units for bf16"
    assert "training.precision" not in dry.err


def test_bf16_that_is_emulated_is_warned_of_in_one_line(machine, tiny, medgen, tmp_path):
    """Point 31."""
    given = (*tiny, "training.precision=bf16", "training.steps=1", f"run.dir={tmp_path}/run")
    result = medgen("train", "bravo_rflow", *given)
    [line] = [each for each in result.err.splitlines() if "training.precision" in each]
    assert result.out.startswith("device   cpu, in bf16, as training.precision says\n")
    assert line.startswith(
        "medgen: warning: training.precision: bf16 is slow here, as the CPU has no units for bf16"
    )


@pytest.mark.parametrize("how", ["folder", "auto", "found"])
def test_a_run_goes_on_in_the_precision_it_began_with(how, machine, auto, medgen, tmp_path):
    """Point 31: on a machine that would choose another, and so does what is generated with it."""
    where = tmp_path / "runs" if how == "found" else tmp_path / "run"
    place = (f"run.root={where}", "run.folder=one") if how == "found" else (f"run.dir={where}",)
    given = ("train", "bravo_rflow", *auto, *place, "training.steps=4")
    machine("avx512_bf16")
    with contextlib.suppress(StoppedError):
        session.start(load("bravo_rflow", given[2:]), until=2)
    machine("")
    run = where / "one" if how == "found" else where
    result = (
        medgen("train", "--resume", run) if how == "folder" else medgen(*given, "--resume", "auto")
    )
    assert result.code == 0, result.err
    assert result.out.startswith("device   cpu, in bf16, as the run began\n")
    assert "kept, as the run began with it" in result.err
    assert precision(run / "latest.pt") == "bf16"
    assert 'precision = "bf16"' in (run / "recipe.toml").read_text()
    assert pair_writer.load_model(run / "latest.pt").recipe.training.precision == "bf16"


def test_another_precision_than_it_began_with_is_refused(machine, auto, medgen, tmp_path):
    assert (
        medgen("train", "bravo_rflow", *auto, "training.steps=1", f"run.dir={tmp_path}/run").code
        == 0
    )
    result = medgen(
        "train", "--resume", tmp_path / "run", "training.steps=2", "training.precision=bf16"
    )
    assert result.code == 4
    assert 'training.precision: "fp32" -> "bf16"' in result.err


def test_auto_finds_only_a_run_of_its_own_recipe(machine, auto, tiny):
    recipe = load("bravo_rflow", auto)
    made = load("bravo_rflow", (*tiny, *SMALL))
    assert folder.identity(auto_settings.fill(recipe, {"precision": "fp32"})) == folder.identity(
        made
    )
    assert folder.identity(auto_settings.fill(recipe, {"precision": "bf16"})) != folder.identity(
        made
    )
    compiled = attrs.evolve(made, training=attrs.evolve(made.training, compile=True))
    assert folder.identity(compiled) == folder.identity(made)


def test_channels_last_follows_what_was_chosen(machine, auto, tmp_path):
    """Point 31."""
    wide = [*auto, "network.unet.channels=[128,128]", "training.steps=1"]
    for words, expected in (("", False), ("avx512_bf16", True)):
        machine(words)
        run = assemble(load("bravo_rflow", wide), tmp_path)
        assert run.channels_last is expected
        run.train.close()


def test_phases_are_trained_in_the_precision_of_the_first(
    machine, cohort, medgen, tmp_path, monkeypatch
):
    """Point 31, for runs that consist of child runs: the whole run's recipe has it."""
    seen = []
    monkeypatch.setattr(
        "medgen.training.session._train_children",
        lambda recipe, where, *_: seen.append(recipe) or where,
    )
    given = (
        "vae_progressive",
        f"data.root={cohort}",
        "losses.perceptual=false",
        f"run.dir={tmp_path}/run",
    )
    machine("avx512_bf16")
    assert medgen("train", *given).code == 0
    machine("")
    assert medgen("train", "--resume", tmp_path / "run").code == 0
    assert [each.training.precision for each in seen] == ["bf16", "bf16"]


def test_nothing_is_computed_in_a_precision_that_was_not_chosen():
    with pytest.raises(KeyError):
        sampling.autocast(CPU, "auto")
