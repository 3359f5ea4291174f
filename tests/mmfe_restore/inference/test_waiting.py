"""The share of one photograph that is done, from the network to the bar."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmfe_restore import Restorer, load_recipe
from mmfe_restore.inference import files, restore_image
from mmfe_restore.inference.files import share_of


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    model = replace(
        load_recipe("demo").model, width=8, num_heads=(1, 1, 2, 2), num_refinement_blocks=1
    )
    return Restorer(model).eval()


@pytest.mark.parametrize("tile", ["auto", 64])
def test_the_share_rises_to_one_in_small_steps(restorer: Restorer, tile: int | str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (160, 144, 3), dtype=np.uint8)
    shares: list[float] = []
    restorer.strip_bytes = 1 << 16
    watched = restore_image(restorer, image, tile=tile, overlap=8, watch=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert max(np.diff([0, *shares])) < 0.2
    assert np.array_equal(watched, restore_image(restorer, image, tile=tile, overlap=8))


@pytest.mark.parametrize("size", [(1, 1), (17, 40), (64, 48)])
@pytest.mark.parametrize("strip", [1 << 12, 1 << 30])
def test_what_strips_report_adds_up_to_what_was_announced(
    restorer: Restorer, size: tuple[int, int], strip: int
) -> None:
    shares: list[float] = []
    restorer.strip_bytes = strip
    with torch.no_grad():
        restorer(torch.rand(2, 3, *size), watch=shares.append)
    assert shares[-1] == 1  # the share is cut at 1, so look at the step before it as well
    assert shares[-2] < 1


class Recorder:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None, str]] = []
        self.steps: list[int] = []

    def advance(self, amount: int = 1) -> None:
        self.steps.append(amount)

    @contextmanager
    def task(
        self, title: str, total: int | None, unit: str = "samples"
    ) -> Generator[Recorder, None, None]:
        self.tasks.append((title, total, unit))
        yield self

    def message(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def test_a_large_photograph_has_a_bar_of_whole_percents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 100)
    seen = Recorder()
    with share_of(seen, "a.png", np.zeros((10, 10, 3))) as watch:
        assert watch is not None
        for share in (0.001, 0.104, 0.105, 0.5, 0.99):
            watch(share)
    assert seen.tasks == [("a.png", 100, "%")]
    assert seen.steps == [10, 40, 49, 1]
    with share_of(seen, "b.png", np.zeros((9, 11, 3))) as watch:
        assert watch is None
    assert len(seen.tasks) == 1
