"""The benchmarks run, at sizes that say nothing of speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.system import console

BENCHMARKS = Path(__file__).parent / "benchmarks"
ROWS = {
    "step": ["step: medgen / bare", "step: bare / bare (A/A)"],
    "volumes": ["volumes: medgen / bare", "volumes: bare / bare (A/A)"],
    "peers": ["step: MONAI default / medgen", "step: MONAI bf16 / medgen"],
    "data": [
        "data: MONAI CacheDataset, volumes / medgen",
        "data: MONAI CacheDataset, slices / medgen",
    ],
    "crops": ["crops: MONAI CacheDataset, RandCropByPosNegLabel / medgen"],
    "sampling": ["sampling: DDPM 1000 steps / medgen 25 steps"],
    "latent": [
        "latent: step that encodes / step from the cache",
        "latent: sampling in pixels / in latents",
    ],
    "ranks": ["ranks: two processes / two ranks"],
    "saving": ["saving: save / torch.save", "saving: save / torch.save + fsync"],
}
"""What each part of the table begins with; a peer's rows are there where it is installed."""
CASE = {
    "batch": 1 / 32,  # at 128 px: two images at 16 px
    "channels": "8,16",
    "warmup": 1,
    "count": 1,
    "repeats": 2,
    "profile": False,
    "overrides": [],
}


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a script as if it had been started, on the CPU."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return __import__


@pytest.mark.parametrize("part", ROWS)
def test_each_part_of_the_table_has_its_rows(part, benchmark, tmp_path):
    """Measured, with a positive median."""
    bench = benchmark("bench")
    rows = bench.PARTS[part](tmp_path, bench.parse(["--quick"])).rows
    assert [row.name for row in rows][: len(ROWS[part])] == ROWS[part]
    assert all(min(row.values) > 0 for row in rows)


def test_the_table_is_written_with_the_machine_and_the_command(benchmark, tmp_path, monkeypatch):
    """The rows of start-up, which need no network."""
    arguments = ["--quick", "--only", "startup", "--write", f"{tmp_path}/R.md"]
    monkeypatch.setattr("sys.argv", [str(BENCHMARKS / "bench.py"), *arguments])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(console.out, "quiet", False)
    benchmark("bench").main()
    written = (tmp_path / "R.md").read_text()
    assert "| start-up: medgen --help, beyond python | " in written
    assert "bench.py --quick --only startup" in written
    assert "avx512_bf16" in written


def test_rows_that_are_not_there_are_refused(benchmark, capsys):
    """With the names of those that are."""
    with pytest.raises(SystemExit, match="2"):
        benchmark("bench").parse(["--only", "step,speed"])
    assert "got speed, expected some of step, volumes, peers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("relation", "median", "verdict"), [("most", 1.03, "missed by 1.0%"), ("least", 1.03, "met")]
)
def test_a_goal_says_by_how_much_it_is_missed(relation, median, verdict, benchmark):
    """Of a median against at most or at least 1.02."""
    assert benchmark("report").Goal(relation, 1.02).verdict(median) == verdict


def test_without_a_gpu_its_benchmark_ends_with_one_line(benchmark, monkeypatch):
    """And measures nothing."""
    monkeypatch.setattr("sys.argv", ["bench_gpu.py"])
    with pytest.raises(SystemExit, match=r"^bench_gpu: torch sees no CUDA device\. [^\n]*$"):
        benchmark("bench_gpu").main()


def test_a_volume_in_tiles_is_measured(benchmark):
    """With a small network."""
    small = ("network.autoencoder.channels=[8,8,8]", "network.autoencoder.num_res_blocks=1")
    taken = benchmark("bench_tiles").measure((32, 16, 16), 16, small)
    assert min(taken) > 0


@pytest.mark.parametrize("who", ["medgen", "MONAI default", "MONAI bf16"])
def test_a_case_of_the_gpus_benchmark_gives_what_its_table_needs(who, benchmark):
    """Speeds, memory, FLOPs of an image and the device's peak; and a line of as many cells as there are columns."""
    bench = benchmark("bench_gpu")
    found = json.loads(
        json.dumps(bench.inside(json.dumps(["case", [who, 16, False, False], CASE])))
    )
    measured = bench.Measured(*found)
    assert len(measured.speeds) == 2
    assert min(*measured.speeds, measured.memory, measured.flops, measured.peak) > 0
    case, options = bench.Case(who, 16), bench.parse([])
    assert len(bench.line(case, [found], {case: [found]}, options)) == len(bench.COLUMNS)
    assert len(bench.line(case, ["out of memory"], {}, options)) == len(bench.COLUMNS)
