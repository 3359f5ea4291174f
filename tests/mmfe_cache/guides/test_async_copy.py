"""Results are waited for on the device that makes them, which need not be the current one."""

import numpy as np
import pytest
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.guides import base, load_guide
from mmfe_cache.guides.base import AsyncCopy


class OnDevice:
    """A tensor that says it lies on a GPU."""

    is_cuda = True

    def __init__(self, device, value):
        self.device, self.value = torch.device(device), value


@pytest.fixture
def recorded(monkeypatch):
    """Which streams events were recorded on, and which of these were waited for."""
    found = {"on": [], "waited": []}

    class Event:
        def record(self, stream=None):
            self.stream = stream
            found["on"].append(stream)

        def synchronize(self):
            found["waited"].append(self.stream)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    monkeypatch.setattr(base, "_to_pinned", lambda t: torch.full((1,), t.value))
    return found


def test_the_event_is_recorded_on_the_tensors_own_device(recorded):
    kinds = [OnDevice("cuda:1", value) for value in (1.0, 2.0, 3.0)]
    copy = AsyncCopy(Embeddings(*kinds))
    assert recorded == {"on": ["stream of cuda:1"], "waited": []}
    assert [t.item() for t in copy.result().present().values()] == [1.0, 2.0, 3.0]
    assert recorded["waited"] == ["stream of cuda:1"]
    copy.result()
    assert recorded["waited"] == ["stream of cuda:1"]


def test_every_device_is_waited_for(recorded):
    AsyncCopy(Embeddings(OnDevice("cuda:0", 1.0), OnDevice("cuda:1", 2.0))).result()
    assert sorted(recorded["waited"]) == ["stream of cuda:0", "stream of cuda:1"]


def test_from_a_cpu_nothing_is_recorded(recorded):
    found = AsyncCopy(Embeddings(answer=torch.ones(2, 3))).result()
    assert recorded["on"] == []
    assert torch.equal(found.answer, torch.ones(2, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_values_have_arrived():
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    big = torch.randn(4000, 4000, device=last)
    answer = sum(big @ big for _ in range(20))
    assert torch.equal(AsyncCopy(Embeddings(answer=answer)).result().answer, answer.cpu())


def test_a_network_with_gradients_may_read_what_a_guide_gave():
    guide = load_guide("scene", device="cpu")
    found = guide.encode([np.zeros((64, 80, 3), np.uint8)])
    for embeddings in (found, guide.only(found, ["rain"])):
        for tensor in embeddings.present().values():
            weight = torch.ones(tensor.shape[-1], requires_grad=True)
            (tensor @ weight).sum().backward()
            assert torch.equal(weight.grad, tensor.flatten(0, -2).sum(dim=0))
