"""LPIPS through torchvision's file of backbone weights; the weights here are random ones."""

import pytest
import torch
from torchvision.models import alexnet

from mmfe_cache.errors import DataError
from mmfe_restore.metrics.lpips import LPIPS


@pytest.fixture
def hub(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.manual_seed(0)
    network = alexnet(weights=None)
    torch.save(network.state_dict(), folder / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return network.features


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    clean = torch.rand(count, 3, 72, 96)
    strength = torch.linspace(0.05, 0.4, count).reshape(-1, 1, 1, 1)
    return (clean + strength * torch.randn_like(clean)).clamp(0, 1), clean


def test_it_is_the_distance_of_the_files_weights(hub):
    """Against the definition: normalised features, squared differences, linear layers, means."""
    metric = LPIPS("alex")
    restored, clean = images(2)
    net = metric._net
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)

    def features(image):
        found, x = [], (image * 2 - 1 - shift) / scale
        for layer in hub:
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-8))
                x = x.clone()  # the next in-place layer must leave what was kept alone
        return found

    with torch.no_grad():
        pairs = list(zip(features(restored), features(clean), strict=True))
        linear = [layer.model[-1].weight for layer in net.lins]
        expected = sum(
            ((a - b).square() * w).sum(1).mean((1, 2))
            for (a, b), w in zip(pairs, linear, strict=True)
        )
    assert torch.allclose(metric.per_image(restored, clean), expected.double(), rtol=1e-4)
    assert (expected > 0).all()


def test_one_batch_and_single_images_agree_and_worse_is_higher(hub):
    restored, clean = images(4)
    metric = LPIPS("alex")
    together = metric.per_image(restored, clean)
    alone = torch.cat(
        [metric.per_image(a[None], b[None]) for a, b in zip(restored, clean, strict=True)]
    )
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-9)
    assert together.dtype == torch.float64
    assert (together.diff() > 0).all()
    metric.update(restored, clean)
    assert float(metric.compute()) == pytest.approx(float(together.mean()))


def test_identical_images_are_at_distance_zero(hub):
    _, clean = images(1)
    assert float(LPIPS("alex").per_image(clean, clean)) == 0.0


@pytest.mark.parametrize("shape", [(1, 3, 63, 96), (1, 1, 72, 96)])
def test_what_the_backbone_cannot_judge(hub, shape):
    with pytest.raises(DataError, match="LPIPS cannot judge"):
        LPIPS("alex").per_image(torch.zeros(shape), torch.zeros(shape))
