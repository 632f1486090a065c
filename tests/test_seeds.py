"""All randomness is a function of the position."""

from concurrent.futures import ThreadPoolExecutor

import torch

from medgen import seeds


def test_the_same_position_gives_the_same_numbers():
    one, two = (torch.randn(5, generator=seeds.stream(0, "draws", 7)) for _ in range(2))
    assert torch.equal(one, two)


def test_seed_purpose_and_index_each_change_the_numbers():
    streams = [(0, "draws", 7), (1, "draws", 7), (0, "val", 7), (0, "draws", 8), (0, "draws", 7, 1)]
    values = [torch.randn(1, generator=seeds.stream(*each)).item() for each in streams]
    assert len(set(values)) == len(streams)


def test_an_epoch_visits_every_sample_once_and_epochs_differ():
    first, second = seeds.permutation(0, 0, 50), seeds.permutation(0, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, second)


def test_threads_that_seed_the_global_generator_do_not_meet():
    def drawn(number: int) -> list[float]:
        with seeds.seeded(number):
            return torch.cat([torch.randn(1) for _ in range(500)]).tolist()

    before = torch.random.get_rng_state()
    alone = [drawn(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(drawn, range(8))) == alone
    assert torch.equal(torch.random.get_rng_state(), before)
