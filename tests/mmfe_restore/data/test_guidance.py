"""Guidance by position: each sample's own, another's, or nobody's."""

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore.data import SampleGuidance, find_store
from mmfe_restore.recipes import load_recipe

D = 4


class Cache:
    """Embeddings that say whose they are: every number of sample i is i."""

    dim = D

    def __init__(self, ids):
        self._ids = list(ids)

    def index_of(self, ids):
        return np.array([self._ids.index(one) for one in ids])

    def gather(self, indices, view, arrays, tokens, pin=False):
        number = torch.as_tensor(np.asarray(indices), dtype=torch.float16)
        full = Embeddings(
            image=number[:, None, None].expand(-1, 17, D),
            joint=number[:, None, None].expand(-1, 17, D),
            answer=number[:, None].expand(-1, D),
        ).select(tokens)
        return Embeddings(**{k: t for k, t in full.present().items() if k in arrays})


IDS = [f"s{i:02}" for i in range(40)]
STORED = sorted(IDS, key=lambda one: one[::-1])  # a store need not keep the order of training


def guidance(**options):
    return SampleGuidance(Cache(STORED), IDS, arrays=("image", "answer"), **options)


def test_every_sample_has_its_own_in_the_order_of_training():
    found = guidance().read([3, 0], "whole@16")
    assert set(found.present()) == {"image", "answer"}
    assert found.image.shape == (2, 16, D)
    assert found.answer[:, 0].tolist() == [STORED.index("s03"), STORED.index("s00")]
    assert torch.equal(guidance().read_answers([3, 0], "whole@16"), found.answer)


def test_shuffled_is_one_fixed_permutation():
    one, again = guidance(control="shuffled"), guidance(control="shuffled")
    whose = one.read_answers(range(40), "whole@16")[:, 0].tolist()
    assert sorted(whose) == list(range(40))
    assert again.read_answers(range(40), "whole@32")[:, 0].tolist() == whose
    own = guidance().read_answers(range(40), "whole@16")[:, 0].tolist()
    assert sum(a == b for a, b in zip(whose, own, strict=True)) < 10


@pytest.mark.parametrize(("tokens", "count"), [("grid", 16), ("mean", 1)])
def test_constant_is_the_same_for_all_samples_views_and_runs(tokens, count):
    options = {"control": "constant", "tokens": tokens}
    found = guidance(**options).read([0, 7], "whole@16")
    assert found.image.shape == (2, count, D)
    assert torch.equal(found.image[0], found.image[1])
    elsewhere = SampleGuidance(Cache(["x"]), ["x"], arrays=("image", "answer"), **options)
    assert torch.equal(elsewhere.read([0], "crop@96").image[0], found.image[0])
    assert torch.equal(elsewhere.read_answers([0], "crop@96")[0], found.answer[1])


def test_a_folder_of_stores_is_one_whatever_its_name(tmp_path):
    recipe, folder = load_recipe("small"), tmp_path / "train.zarr"
    assert find_store(recipe, "cdd11", "train", folder) == folder  # not there: its name counts
    store = folder / "train" / "scene.zarr"
    store.mkdir(parents=True)  # as `cache build --out train.zarr` leaves it
    assert find_store(recipe, "cdd11", "train", folder) == store
    (store / "zarr.json").write_text("{}")
    assert find_store(recipe, "cdd11", "train", store) == store
