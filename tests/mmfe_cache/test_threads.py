"""The number of threads follows what is measured; the load is given here, not made."""

import pytest
import torch

from mmfe_cache.threads import choose_threads, time_network


@pytest.fixture(autouse=True)
def nobody_chose(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def scales(threads):
    return 0.1 / threads


def busy(threads):
    """Two threads of one product share a core with another process and wait for each other."""
    return 0.1 if threads == 1 else 0.9


@pytest.mark.parametrize(
    ("cores", "measure", "expected"),
    [
        (1, scales, 1),
        (2, scales, 2),
        (6, scales, 6),
        (8, scales, 8),
        (2, busy, 1),
        (8, busy, 1),
        (8, lambda n: 0.1 / min(n, 4), 4),  # four cores are free
        (2, lambda n: 0.1 if n == 1 else 0.095, 1),  # not worth a second core
    ],
)
def test_the_fewest_threads_that_are_about_as_fast(cores, measure, expected):
    assert choose_threads(cores, measure).count == expected


def test_the_environment_decides_without_a_measurement(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    chosen = choose_threads(8, lambda n: pytest.fail("measured"))
    assert str(chosen) == "threads: 3 (OMP_NUM_THREADS says so)"


def test_the_choice_says_what_was_measured():
    said = str(choose_threads(2, busy))
    assert said == "threads: 1 (measured: 100.0 ms on 1, 900.0 ms on 2)"


def test_measuring_leaves_the_number_of_threads_alone():
    before = torch.get_num_threads()
    assert time_network(2) > 0
    assert torch.get_num_threads() == before
