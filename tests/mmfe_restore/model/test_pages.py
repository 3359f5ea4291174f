"""What a large photograph's maps hold at once, counted in bytes."""

from __future__ import annotations

import gc
import mmap
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmfe_restore import Restorer
from mmfe_restore.model import network, strips
from mmfe_restore.model.pages import give_back, give_back_free
from mmfe_restore.model.restormer import Downsample, Upsample, conv1x1
from mmfe_restore.model.runners import Meter
from mmfe_restore.model.streaming import StreamedLevel1
from mmfe_restore.model.strips import Strips
from mmfe_restore.recipes import load_recipe

HEIGHT, WIDTH, CHANNELS = 64, 24, 8
ROW = WIDTH * CHANNELS * 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep them")
def test_whole_pages_inside_the_rows_go_back_and_nothing_else() -> None:
    per_page = mmap.PAGESIZE // 4
    x = torch.ones(64 * per_page)
    skew = -x.data_ptr() % mmap.PAGESIZE // 4  # numbers before the first whole page
    rows = x[skew + per_page // 2 : skew + 40 * per_page + 1]
    give_back(rows)
    give_back_free()
    gone = (x == 0).nonzero().flatten()
    assert gone.tolist() == list(range(skew + per_page, skew + 40 * per_page))
    give_back(x[:0])
    give_back(x[:2])
    assert x[: skew + per_page].eq(1).all()


class Given:
    """Stands for `give_back`: counts, and spoils what was given back so that nobody reads it."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, rows: Tensor) -> None:
        self.bytes += rows.nbytes
        rows.fill_(float("nan"))


def _watched(total: int, watch: Callable[[float], None]) -> Strips:
    run = Strips(budget=4 * ROW, puts_away=True)
    run.meter = Meter(total, watch)
    return run


@torch.no_grad()
def test_a_map_is_used_up_while_the_next_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    down = Downsample(CHANNELS)
    x = torch.randn(1, HEIGHT, WIDTH, CHANNELS)
    before = x.clone()
    expected, kept = Strips(budget=4 * ROW).down(down, x)
    assert kept is x
    given = Given()
    monkeypatch.setattr(strips, "give_back", given)
    held: list[float] = []

    def watch(share: float) -> None:
        # Of the next map, and of the half precision, nothing is there that was not written.
        held.append(x.nbytes - given.bytes + share * (expected.nbytes + x.nbytes // 2))

    found, kept = _watched(HEIGHT * WIDTH * CHANNELS, watch).down(down, x)
    assert torch.equal(found, expected)
    assert kept.dtype == torch.float16
    assert torch.equal(kept, before.half())
    assert len(held) == HEIGHT // 4
    assert max(held) <= x.nbytes + ROW


@torch.no_grad()
def test_a_map_that_is_put_away_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, HEIGHT, WIDTH, CHANNELS)
    expected, given = x.half(), Given()
    monkeypatch.setattr(strips, "give_back", given)
    assert torch.equal(Strips(4 * ROW, puts_away=True).put_away(x), expected)
    assert given.bytes == x.nbytes
    for as_it_is in (x.double(), x.bfloat16()):
        assert Strips(4 * ROW, puts_away=True).put_away(as_it_is) is as_it_is
    assert Strips(4 * ROW).put_away(x) is x


@torch.no_grad()
def test_skip_and_smaller_map_are_used_up_while_the_larger_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    up, reduce = Upsample(2 * CHANNELS), conv1x1(2 * CHANNELS, CHANNELS)
    x = torch.randn(1, HEIGHT // 2, WIDTH // 2, 2 * CHANNELS)
    skip = torch.randn(1, HEIGHT, WIDTH, CHANNELS).half()
    expected = Strips(budget=4 * ROW).up(up, x, skip.float(), reduce)
    given = Given()
    monkeypatch.setattr(strips, "give_back", given)
    held: list[float] = []

    def watch(share: float) -> None:
        held.append(x.nbytes + skip.nbytes - given.bytes + share * expected.nbytes)

    run = _watched(HEIGHT // 2 * WIDTH // 2 * 4 * CHANNELS, watch)
    found = run.up(up, x, skip, reduce)
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
    assert len(held) == HEIGHT // 2 // 2
    assert max(held) <= expected.nbytes + x[0, 0].nbytes


def test_where_nothing_is_put_away_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given()
    monkeypatch.setattr(strips, "give_back", given)
    with torch.no_grad():
        for kind, puts_away in ((torch.float32, False), (torch.float64, True)):
            x = torch.randn(1, 8, 8, CHANNELS, dtype=kind)
            run = Strips(1 << 20, puts_away)
            smaller, kept = run.down(Downsample(CHANNELS).to(kind), x)
            assert kept is x
            reduce = conv1x1(2 * CHANNELS, CHANNELS).to(kind)
            assert run.up(Upsample(2 * CHANNELS).to(kind), smaller, kept, reduce).data_ptr() == (
                x.data_ptr()  # the result takes the place of the skip
            )
    assert given.bytes == 0


@torch.no_grad()
@pytest.mark.parametrize("most", [65_504.0, -65_505.0])
def test_a_map_beyond_half_precision_is_kept_as_it_is(most: float) -> None:
    x = torch.randn(1, 8, 8, CHANNELS)
    x[0, 3, 4, 5] = most
    before = x.clone()
    _, kept = Strips(1 << 20, puts_away=True).down(Downsample(CHANNELS), x)
    assert torch.equal(kept, before.half() if most > 0 else before)


@pytest.mark.parametrize("kind", ["bytes", "numbers"])
def test_at_most_level_1_in_half_and_level_2_are_held_beside_the_picture(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Restorer.from_recipe(load_recipe("small", ["guide=oracle", "model.width=8"])).eval()
    restorer.stream_bytes = 0
    restorer.strip_bytes = 1 << 14
    height, width = 512, 128
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    at: dict[str, list[float]] = {}
    present = {one.untyped_storage().data_ptr() for one in restorer.parameters()}

    def held(part: str) -> None:
        """Bytes a pixel of the tensors that are there as a part begins, weights apart."""
        found = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
            for one in gc.get_objects()
            # Not their subclasses: what other tests compiled left tensors without memory.
            if type(one) in (Tensor, nn.Parameter) and one.device.type == "cpu"
        }
        total = sum(size for place, size in found.items() if place not in present)
        at.setdefault(part, []).append((total - others) / (height * width))

    def watched(of: type[Any], part: str) -> None:
        run = getattr(of, part)

        def begin(*given: Any) -> Any:
            held(part)
            return run(*given)

        monkeypatch.setattr(of, part, begin)

    for part in ("block", "mix", "down", "up"):
        watched(Strips, part)
    watched(StreamedLevel1, "decode")
    trimmed: list[None] = []
    for module in (network, strips):
        monkeypatch.setattr(module, "give_back_free", lambda: trimmed.append(None))
    others = 0.0
    held("before")
    others = at["before"][0] * height * width - image.nbytes
    with torch.inference_mode():
        if kind == "bytes":
            restorer.restore_bytes(image)
            picture = 3
        else:
            image = image.float().div_(255)
            restorer(image)
            picture = 12
    bands = 9 * 2 * (1 / 16 + 1 / 64 + 1 / 256)
    level1, level2, spare = 8 * 2, 16 * 4 / 4, 0.4  # tokens, and weights that were multiplied
    assert len(at["block"]) == 2 * (1 + 2) + 4
    # Level 4, and what the decoder waits for: all but the latent level in half precision.
    waiting = [level1, level2 / 2, 32 * 4 / 16 / 2, 64 * 4 / 64]
    assert at["down"][-1] <= picture + bands + level1 + level2 / 2 + 32 * 4 / 16 + spare
    for found in at["block"][3:-3]:
        assert found <= picture + bands + sum(waiting) + spare
    most = max(found for part in ("block", "mix", "down", "up") for found in at[part])
    assert most <= picture + bands + level1 + level2 + spare
    assert most > picture + level1 + level2
    # The bands are gone, and level 2 was put away too.
    assert at["decode"][0] <= picture + level1 + level2 / 2 + spare
    # Before level 1, after it, before it comes again, and within the other levels.
    assert len(trimmed) == 3 + sum(len(at[part]) for part in ("block", "mix", "down", "up"))
