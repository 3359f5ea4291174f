"""Any sequence of builds, deaths, damages, verifications and repairs ends in the same store."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from benchmarks.cache_support import TinyGuide, sample_set, tree
from mmfe_cache import open_cache
from mmfe_cache.precompute import build_cache
from mmfe_cache.precompute.repair import repair_cache
from mmfe_cache.store.verify import verify

VIEWS = ("whole@16", "crop@8", "native")


class Death(BaseException):
    """Stands for a signal: nothing in the code catches it."""


class MortalGuide(TinyGuide):
    def __init__(self, batches):
        super().__init__()
        self._left = batches

    def encode_prepared(self, prepared):
        if self._left == 0:
            raise Death
        self._left -= 1
        return super().encode_prepared(prepared)


def build(path, views, guide):
    return build_cache(sample_set(7), guide, views, path, batch_size=2, shard_samples=3, workers=1)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.zarr"
        self.built = set()
        self.damaged = False

    @initialize()
    def whole(self):
        build(self.folder / "whole.zarr", VIEWS, TinyGuide())
        self.expected = tree(self.folder / "whole.zarr")

    @rule(view=st.sampled_from(VIEWS))
    def add_a_view(self, view):
        if self.damaged:
            return
        report = build(self.path, [view], TinyGuide())
        assert (report.encodings == 0) or view not in self.built
        assert report.encodings + report.reused == 7
        self.built.add(view)

    @rule(views=st.sets(st.sampled_from(VIEWS), min_size=1), batches=st.integers(0, 9))
    def die(self, views, batches):
        if self.damaged:
            return
        try:
            build(self.path, sorted(views), MortalGuide(batches))
        except Death:
            return
        self.built |= views

    @rule(data=st.data())
    def flip_a_bit(self, data):
        names = sorted(tree(self.path)) if self.path.exists() else []
        if not names or not self.built:
            return
        name = data.draw(st.sampled_from(names))
        content = bytearray((self.path / name).read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        (self.path / name).write_bytes(content)
        assert not verify(self.path).intact or bytes(content) == self.expected.get(name)
        self.damaged = not verify(self.path).intact

    @rule()
    def repair(self):
        if self.built:
            assert repair_cache(self.path, sample_set(7), TinyGuide()).after.intact
            self.damaged = False

    @invariant()
    def what_is_finished_reads_right(self):
        if self.damaged or not self.built:
            return
        assert verify(self.path).intact
        reader, whole = open_cache(self.path), open_cache(self.folder / "whole.zarr")
        assert self.built <= set(reader.views)
        for view in reader.views:
            left = reader.gather(range(7), view, tokens="all", check="always")
            right = whole.gather(range(7), view, tokens="all")
            assert all((getattr(left, n) == t).all() for n, t in right.present().items())

    def teardown(self):
        if self.damaged and self.built:
            repair_cache(self.path, sample_set(7), TinyGuide())
        build(self.path, VIEWS, TinyGuide())
        assert tree(self.path) == self.expected
        assert {p.name for p in self.folder.iterdir()} == {"a.zarr", "whole.zarr"}
        shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_any_history = StoreMachine.TestCase
