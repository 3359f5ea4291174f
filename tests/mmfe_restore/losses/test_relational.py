"""L_MGL equals a NumPy computation and one done by hand."""

import numpy as np
import pytest
import torch

from mmfe_restore.losses import cosine_similarities, relational_loss, router_loss


def by_numpy(answer, weights, keep=None):
    def similarities(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    if keep is not None:
        answer, weights = answer[keep], weights[keep]
    return np.abs(similarities(answer) - similarities(weights)).mean()


def test_by_hand():
    # Answers at right angles: Sim = [[1, 0], [0, 1]]. Weights (1, 0) and (3, 4): cosine 3/5.
    # |difference| = [[0, 3/5], [3/5, 0]], whose mean is 3/10.
    answer = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    weights = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert float(relational_loss(answer, weights)) == pytest.approx(0.3, abs=1e-7)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_equals_numpy(batch):
    random = np.random.default_rng(batch)
    answer, weights = random.standard_normal((batch, 16)), random.random((batch, 8))
    value = relational_loss(torch.from_numpy(answer), torch.from_numpy(weights))
    assert float(value) == pytest.approx(by_numpy(answer, weights), abs=1e-12)


def test_dropped_samples_do_not_count():
    random = np.random.default_rng(0)
    answer, weights = random.standard_normal((6, 16)), random.random((6, 8))
    keep = np.array([True, False, True, True, False, True])
    value = relational_loss(*(torch.from_numpy(a) for a in (answer, weights, keep)))
    assert float(value) == pytest.approx(by_numpy(answer, weights, keep), abs=1e-12)


def test_nothing_kept_is_zero_with_a_finite_gradient():
    weights = torch.rand(3, 4, requires_grad=True)
    loss = relational_loss(torch.randn(3, 5), weights, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


def test_is_a_mean_so_it_does_not_grow_with_the_batch():
    answer, weights = torch.randn(5, 16), torch.rand(5, 8)
    one = relational_loss(answer, weights)
    twice = relational_loss(answer.repeat(2, 1), weights.repeat(2, 1))
    assert float(one) == pytest.approx(float(twice), rel=1e-5)


def test_no_gradient_reaches_the_answer():
    answer = torch.randn(4, 16, requires_grad=True)
    weights = torch.rand(4, 8, requires_grad=True)
    relational_loss(answer, weights).backward()
    assert answer.grad is None
    assert weights.grad is not None


def test_router_loss_is_the_mean_over_sites():
    answer = torch.randn(4, 16)
    sites = {"a": torch.rand(4, 8), "b": torch.rand(4, 8)}
    mean, each = router_loss(answer, sites)
    assert set(each) == {"a", "b"}
    expected = [float(relational_loss(answer, s)) for s in sites.values()]
    assert float(mean) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_a_zero_vector_is_similar_to_nothing():
    similarities = cosine_similarities(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert similarities.tolist() == [[0.0, 0.0], [0.0, 1.0]]
