"""Work shared by threads."""

from __future__ import annotations

import threading

import pytest
import torch

from medgen.evaluation import threads as work_of
from medgen.evaluation.threads import threads


@pytest.mark.parametrize("cores", [1, 3])
def test_results_come_in_order_and_torch_has_one_thread_for_each(cores, monkeypatch):
    monkeypatch.setattr(work_of, "count_cores", lambda: cores)
    before = torch.get_num_threads()
    with threads() as work:
        found = list(work(lambda item: (item, torch.get_num_threads()), range(10)))
    assert found == [(item, 1) for item in range(10)]
    assert torch.get_num_threads() == before


def test_work_within_work_is_done(monkeypatch):
    monkeypatch.setattr(work_of, "count_cores", lambda: 2)

    def inner(item: int) -> int:
        with threads() as work:
            return sum(work(lambda each: each * item, range(3)))

    with threads() as work:
        assert list(work(inner, range(6))) == [3 * item for item in range(6)]


def test_after_an_error_nothing_else_is_begun(monkeypatch):
    monkeypatch.setattr(work_of, "count_cores", lambda: 1)
    done, failed = [], threading.Event()

    def task(item: int) -> int:
        done.append(item)
        if item == 0:
            raise ValueError("the first")
        failed.wait()
        return item

    def run() -> None:
        with threads() as work:
            try:
                list(work(task, range(5)))
            finally:
                failed.set()

    with pytest.raises(ValueError, match="the first"):
        run()
    assert set(done) <= {0, 1}
