"""Restoring in tiles: where they lie, how they are blended, and who is restored so."""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import UsageError
from mmfe_restore.inference import restore_image
from mmfe_restore.model import Restorer, mofe
from mmfe_restore.model.tiles import restore_tiles, tile_starts
from mmfe_restore.recipes.schema import ModelConfig


@pytest.fixture
def restorer() -> Restorer:
    """An unguided network whose output depends on what lies far away, through its attention."""
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    torch.manual_seed(0)
    network = Restorer(ModelConfig(width=8, num_blocks=(1, 1, 1, 1), **off)).eval()
    torch.nn.init.normal_(network.output.weight, std=0.05)
    return network


def picture(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("overlap", [0, 16, 32])
@pytest.mark.parametrize("tile", [64, 96, 200])
def test_tiles_cover_a_side_evenly(tile: int, overlap: int) -> None:
    for length in range(1, 700):
        starts, side = tile_starts(length, tile, overlap, 16)
        assert starts[0] == 0 and starts[-1] + side == length and side <= tile
        shared = [a + side - b for a, b in pairwise(starts)]
        assert min(shared, default=overlap) >= overlap
        assert max(shared, default=0) - min(shared, default=0) <= 1
        # One fewer would not reach.
        assert len(starts) == 1 or (len(starts) - 1) * (tile - overlap) + overlap < length


def test_an_overlap_is_at_most_half_a_tile() -> None:
    assert tile_starts(200, 64, 500) == tile_starts(200, 64, 32)


def test_tiles_are_blended_as_a_slow_reading_blends_them(restorer: Restorer) -> None:
    image = picture(100, 150)
    with torch.no_grad():
        found = restore_tiles(restorer, image, None, tile=64, overlap=16)
    rows, tall = tile_starts(100, 64, 16, restorer.size_multiple)
    columns, wide = tile_starts(150, 64, 16, restorer.size_multiple)
    assert len(rows) == 2 and len(columns) == 3
    total, weight = np.zeros((3, 100, 150)), np.zeros((100, 150))

    def share(position: int, number: int, starts: list[int], side: int) -> float:
        """Of a tile's pixel: how far inside it lies, in steps of the overlap, at most 1."""
        least = 1.0
        if number > 0:
            shared = starts[number - 1] + side - starts[number]
            least = min(least, (position + 1) / (shared + 1))
        if number + 1 < len(starts):
            shared = starts[number] + side - starts[number + 1]
            least = min(least, (side - position) / (shared + 1))
        return least

    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            with torch.no_grad():
                part = restorer(image[..., top : top + tall, left : left + wide])[0].numpy()
            for y in range(tall):
                for x in range(wide):
                    much = share(y, i, rows, tall) * share(x, j, columns, wide)
                    total[:, top + y, left + x] += much * part[:, y, x]
                    weight[top + y, left + x] += much
    assert np.abs(found[0].numpy() - total / weight).max() < 1e-5
    with torch.no_grad():
        whole = restorer(image)
    assert (found - whole).abs().max() > 1e-3  # else the comparison would say nothing


def test_a_batch_is_restored_as_its_images_are(restorer: Restorer) -> None:
    images = picture(70, 90, batch=2)
    with torch.no_grad():
        both = restore_tiles(restorer, images, None, tile=64)
        each = [restore_tiles(restorer, image[None], None, tile=64) for image in images]
    assert torch.allclose(both, torch.cat(each), atol=1e-6)


def test_images_that_fit_are_restored_whole(restorer: Restorer) -> None:
    image = (picture(64, 80)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    whole = restore_image(restorer, image)
    for tile in ("off", 80):
        assert np.array_equal(restore_image(restorer, image, tile=tile), whole)
    tiled = restore_image(restorer, image, tile=79)
    assert not np.array_equal(tiled, whole)
    deep = restore_image(restorer, image.astype(np.uint16) * 257, tile=79)
    assert np.abs(deep / 257 - tiled).max() <= 0.51  # bytes and deep pixels alike


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_elsewhere() -> int:
    """What a thread that first asks torch now is given."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("halved", [False, True])
def test_tiles_on_several_threads_are_those_of_one(
    restorer: Restorer, halved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, told = picture(150, 200), []
    seen: set[tuple[int, int, bool, bool]] = set()
    all_there = threading.Barrier(3, timeout=60)

    def note(*_: object) -> None:
        modes = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        one = (threading.get_ident(), torch.get_num_threads(), *modes)
        if one not in seen and one[1] == 1:  # each worker's first tile waits for the others'
            seen.add(one)
            all_there.wait()
        seen.add(one)

    restorer.register_forward_pre_hook(note)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=halved):
        found = restore_tiles(restorer, image, None, tile=64, watch=told.append)
        workers = seen.copy()
        seen.clear()
        monkeypatch.setattr("mmfe_restore.model.tiles.TOGETHER", 1)
        alone = restore_tiles(restorer, image, None, tile=64)
    assert torch.get_num_threads() == threads_elsewhere() == 3
    assert len(workers) == 3 and threading.get_ident() not in {one[0] for one in workers}
    assert {one[1:] for one in workers} == {(1, True, halved)}
    assert {one[:2] for one in seen} == {(threading.get_ident(), 3)}
    assert (found - alone).abs().max() < (1e-2 if halved else 1e-5)
    assert told == pytest.approx(np.arange(1, len(told) + 1) / len(told))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_stops_a_tile_stops_the_image(restorer: Restorer, error: type[BaseException]) -> None:
    calls = itertools.count(1)

    def fail(*_: object) -> None:
        if next(calls) == 5:
            raise error("enough")

    restorer.register_forward_pre_hook(fail)
    with torch.inference_mode(), pytest.raises(error, match="enough"):
        restore_tiles(restorer, picture(64, 9000), None, tile=64)
    assert next(calls) < 200  # of 280: those that had begun end, the others do not begin
    assert torch.get_num_threads() == threads_elsewhere() == 3


def test_few_large_tiles_at_a_time(restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    @contextmanager
    def count(at_once: int, _: torch.device) -> Iterator[object]:
        asked.append(at_once)
        yield map

    monkeypatch.setattr("mmfe_restore.model.tiles._side_by_side", count)
    monkeypatch.setattr("mmfe_restore.model.tiles.TOGETHER", 3 * 64 * 64 * 8 * 4 * 8)
    with torch.inference_mode():
        restore_tiles(restorer, picture(64, 1000), None, tile=64)
        restore_tiles(restorer, picture(64, 300, batch=2), None, tile=64)
        restore_tiles(restorer, picture(64, 300), None, tile=256)
    assert asked == [3, 1, 1]


def test_bytes_and_gradients(restorer: Restorer) -> None:
    image = (picture(70, 90) * 255).byte()
    with torch.no_grad():
        bytes_ = restore_tiles(restorer, image, None, tile=64)
        assert torch.allclose(bytes_, restore_tiles(restorer, image / 255, None, tile=64))
    restore_tiles(restorer, image / 255, None, tile=64).sum().backward()
    assert restorer.output.weight.grad is not None


@pytest.mark.usefixtures("three_threads")
def test_a_guided_network_on_several_threads() -> None:
    torch.manual_seed(0)
    network = Restorer.from_pretrained("mmfe-small").eval()
    tokens = torch.randn(1, 16, 128)
    embeddings = Embeddings(tokens, tokens, tokens[:, 0])
    image = picture(96, 200)
    with torch.inference_mode():
        found = restore_tiles(network, image, embeddings, tile=64)
        part = network(image[..., :64, :64], embeddings)[..., :32, :16]
    assert (found[..., :32, :16] - part).abs().max() < 1e-5  # where no other tile reaches


def test_threads_that_make_a_transform_leave_the_filters_of_warnings_alone() -> None:
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    start = threading.Barrier(4, timeout=60)

    def make(kind: torch.dtype) -> None:
        start.wait()
        mofe._transform("cpu", kind)
        mofe._inverse("cpu", kind)

    try:
        for _ in range(30):
            mofe._transform.cache_clear()
            mofe._inverse.cache_clear()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(make, [torch.float32, torch.float64] * 2))
    finally:
        sys.setswitchinterval(interval)
    found = list(warnings.filters)
    warnings.filters[:] = before  # for the tests that follow
    assert found == before


@pytest.mark.parametrize("tile", ["Off", 7, "64", -3])
def test_an_unknown_tile_is_refused(restorer: Restorer, tile: object) -> None:
    image = np.zeros((70, 70, 3), np.uint8)
    with pytest.raises(UsageError, match="unknown tile"):
        restore_image(restorer, image, tile=tile)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="overlap"):
        restore_image(restorer, image, tile=64, overlap=-1)
