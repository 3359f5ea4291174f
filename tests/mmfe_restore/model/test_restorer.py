from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import ModelError
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.mofe import Experts, haar
from mmfe_restore.model.restorer import pad_to_multiple
from mmfe_restore.recipes import ModelConfig, recipe_names

Make = Callable[..., Restorer]
Guide = Callable[..., Embeddings]


def test_dense_experts_equal_the_loop() -> None:
    torch.manual_seed(0)
    experts = Experts(4, 9, 6).double()
    bands = torch.randn(2, 6, 8, 9, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    dense = experts(bands, weights)
    loop = sum(weights[:, i, None, None, None] * experts.single(i, bands) for i in range(4))
    torch.testing.assert_close(dense, loop, atol=1e-6, rtol=0)
    inputs = [bands, weights, *experts.parameters()]
    for one, other in zip(
        torch.autograd.grad(dense.square().sum(), inputs),
        torch.autograd.grad(loop.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_haar_equals_pywavelets() -> None:
    pywt = pytest.importorskip("pywt")
    image = torch.rand(1, 3, 6, 10, dtype=torch.float64)
    low, high = haar(image)
    expected_low, expected_high = pywt.dwt2(image.numpy(), "haar")
    torch.testing.assert_close(low, torch.from_numpy(expected_low))
    for band, expected in zip(high.unbind(2), expected_high, strict=True):
        torch.testing.assert_close(band, torch.from_numpy(expected))


def test_the_traceable_transform_is_the_same() -> None:
    image = torch.rand(1, 3, 6, 10, dtype=torch.float64)
    program = torch.export.export(_Haar(), (image,))
    for one, other in zip(program.module()(image), haar(image), strict=True):
        torch.testing.assert_close(one, other)


class _Haar(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return haar(image)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 2), (16, 16), (33, 47)])
@pytest.mark.parametrize("experts", ["frequency", "spatial"])
def test_any_size_and_strips_equal_the_whole(
    tiny: Make, guidance: Guide, size: tuple[int, int], experts: str
) -> None:
    restorer, image = tiny(experts=experts), torch.rand(2, 3, *size).double()
    whole = restorer(image, guidance(2)).detach()
    assert whole.shape == image.shape
    restorer.strip_bytes = 1 << 12
    with torch.no_grad():
        torch.testing.assert_close(restorer(image, guidance(2)), whole, atol=1e-9, rtol=1e-9)


def test_one_image_does_not_depend_on_its_batch(tiny: Make, guidance: Guide) -> None:
    restorer, image, both = tiny(), torch.rand(2, 3, 20, 20).double(), guidance(2)
    alone = restorer(image[:1], both.map(lambda t: t[:1]))
    torch.testing.assert_close(restorer(image, both)[:1], alone, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(tiny: Make, guidance: Guide, dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 32, 32).double()
    exact = tiny()(image, guidance()).detach()
    bound = 0.1 if dtype == torch.bfloat16 else 0.02
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            half = tiny(dtype)(image.to(dtype), guidance())
            mixed = tiny(torch.float32)
            with torch.autocast("cpu", dtype=dtype):
                cast = mixed(image.float(), guidance())
        assert (half.double() - exact).abs().max() < bound
        assert (cast.double() - exact).abs().max() < bound


@pytest.mark.parametrize("name", recipe_names())
def test_every_parameter_of_every_recipe_gets_a_gradient(name: str) -> None:
    # The recipe's own structure at a width that a test can afford.
    config = replace(
        load_recipe(name).model,
        width=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        guidance_dim=12,
        identity_start=False,
    )
    torch.manual_seed(0)
    restorer = Restorer(config).double().train()
    tokens = torch.randn(2, 16, 12).double()
    embeddings = Embeddings(tokens, tokens.flip(1), tokens[:, 0])
    keep = torch.tensor([True, False]) if restorer.has_null_guidance else None
    restored = restorer(torch.rand(2, 3, 16, 32).double(), embeddings, keep)
    loss = F.l1_loss(restored, torch.rand_like(restored))
    loss.backward()
    sizes = {n: _largest(p) for n, p in restorer.named_parameters()}
    # Relative to the median parameter's gradient of the same pass. A dead parameter's is rounding,
    # near 1e-16 (see the single token below); a router behind a softmax and a sigmoid is only weak.
    bound = 1e-6 * median(sizes.values())
    assert [f"{n}: {size:.1e}" for n, size in sizes.items() if size <= bound] == []


def _largest(parameter: torch.nn.Parameter) -> float:
    return 0.0 if parameter.grad is None else float(parameter.grad.abs().max())


def test_a_single_token_kills_the_query_and_key(tiny: Make, guidance: Guide) -> None:
    restorer = tiny()
    restorer(torch.rand(1, 3, 16, 16).double(), guidance(tokens=1)).square().sum().backward()
    attention = restorer.mgfb["encoder2"].attn
    for dead in (attention.query, attention.query_dwconv, attention.key):
        assert dead.weight.grad.abs().max() < 1e-12
    assert attention.value.weight.grad.abs().max() > 1e-6


def test_null_guidance_replaces_what_is_not_kept(tiny: Make, guidance: Guide) -> None:
    restorer, image = tiny(guidance_dropout=0.1), torch.rand(2, 3, 16, 16).double()
    null = restorer(image)
    mixed = restorer(image, guidance(2), torch.tensor([True, False]))
    torch.testing.assert_close(mixed[1], null[1])
    torch.testing.assert_close(mixed[0], restorer(image, guidance(2))[0])
    assert (mixed[0] - null[0]).abs().max() > 1e-6


def test_an_identity_start_gives_the_input_back(tiny: Make, guidance: Guide) -> None:
    restorer = Restorer(replace(tiny().config, identity_start=True))
    image = torch.rand(1, 3, 9, 21)
    assert torch.equal(restorer(image, guidance()), image)


def test_router_weights_have_a_site_each(tiny: Make) -> None:
    weights = tiny().router_weights(torch.randn(5, 12).double())
    assert list(weights) == [
        "encoder2", "encoder3", "latent_in", "latent_out", "decoder3", "decoder2",
    ]  # fmt: skip
    assert all(s.shape == (5, 3) and s.min() > 0 and s.max() < 1 for s in weights.values())


def test_activation_checkpointing_changes_no_gradient(tiny: Make, guidance: Guide) -> None:
    gradients = []
    for switch in (False, True):
        restorer = tiny().train()
        restorer.activation_checkpointing = switch
        restorer(torch.ones(1, 3, 16, 16).double() * 0.3, guidance()).square().sum().backward()
        gradients.append([p.grad for p in restorer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_copy_is_a_network_of_its_own(tiny: Make, guidance: Guide) -> None:
    # Few parts: tracing is what takes long.
    restorer = tiny(num_blocks=(1, 0, 0, 0), num_refinement_blocks=0, experts="none")
    image = torch.rand(1, 3, 16, 16).double()
    restorer.compile_core(backend="eager")
    other = copy.deepcopy(restorer)
    torch.nn.init.zeros_(other.output.weight)
    assert torch.equal(other(image, guidance()), image)
    assert not torch.equal(restorer(image, guidance()), image)


ORDER = """
encoder1:image encoder_level1
mofe:encoder2 encoder2:image encoder_level2
mofe:encoder3 encoder3:image encoder_level3
mofe:latent_in latent_in:image latent latent_out:joint mofe:latent_out
decoder_level3 decoder3:joint mofe:decoder3
decoder_level2 decoder2:joint mofe:decoder2
decoder_level1 decoder1:joint refinement
"""
"""Figure 2 and Appendix A.1: MoFE after downsampling and before upsampling, MGFB before the
encoder's blocks with E_Image and after the decoder's with E_Joint."""


def test_the_parts_stand_in_the_papers_order_and_read_the_papers_embeddings(
    tiny: Make, guidance: Guide
) -> None:
    restorer, embeddings, seen = tiny(), guidance(), []
    kinds = {id(t): name for name, t in embeddings.present().items()}

    def note(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen.append(name.format(kind=kinds.get(id(inputs[-1]), "?")))

        return hook

    for site, mgfb in restorer.mgfb.items():
        mgfb.register_forward_pre_hook(note(f"{site}:{{kind}}"))
    for site, mofe in restorer.mofe.items():
        mofe.register_forward_pre_hook(note(f"mofe:{site}"))
    for name, stage in restorer.named_children():
        if isinstance(stage, torch.nn.Sequential):
            stage[0].register_forward_pre_hook(note(name))
    restorer(torch.rand(1, 3, 16, 16).double(), embeddings)
    assert seen == ORDER.split()


def test_evaluation_gives_the_same_bits_twice(tiny: Make, guidance: Guide) -> None:
    restorer, image = tiny(torch.float32), torch.rand(2, 3, 40, 24)
    with torch.no_grad():
        assert torch.equal(restorer(image, guidance(2)), restorer(image, guidance(2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-3), (torch.float16, 0.02), (torch.bfloat16, 0.1)]
)
def test_cuda_agrees_with_the_cpu(
    tiny: Make, guidance: Guide, dtype: torch.dtype, bound: float
) -> None:
    image = torch.rand(1, 3, 40, 24).double()
    exact = tiny()(image, guidance()).detach()
    there = tiny(dtype).cuda()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = there(image.to("cuda", dtype), guidance())
        assert (found.double().cpu() - exact).abs().max() < bound


BAD = {
    "no embedding": (lambda e: None, "null guidance"),
    "a missing kind": (lambda e: replace(e, joint=None), "`joint`"),
    "another width": (lambda e: e.map(lambda t: t[..., :5]), "width"),
    "another batch": (lambda e: e.map(lambda t: torch.cat([t, t])), "batch"),
    "integers": (lambda e: e.map(lambda t: t.long()), "floating-point"),
    "NaN": (lambda e: replace(e, answer=e.answer * float("nan")), "NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_embeddings_are_named(tiny: Make, guidance: Guide, case: str) -> None:
    change, word = BAD[case]
    with pytest.raises(ModelError, match=word):
        tiny()(torch.rand(1, 3, 16, 16).double(), change(guidance()))


def test_embeddings_of_a_view_that_the_recipe_does_not_know_are_refused(
    tiny: Make, guidance: Guide
) -> None:
    restorer, image = tiny(), torch.rand(1, 3, 16, 16).double()
    restorer.recipe = load_recipe("demo")
    whole = restorer(image, guidance())
    for view in (None, *restorer.recipe.training_views, restorer.recipe.eval.view):
        torch.testing.assert_close(restorer(image, replace(guidance(), view=view)), whole)
    with pytest.raises(ModelError, match="another view") as caught:
        restorer(image, replace(guidance(), view="whole@512").to(dtype=torch.float32))
    assert caught.value.got == "whole@512"
    assert restorer.recipe.eval.view in str(caught.value)


@pytest.mark.parametrize(
    "keep", [torch.tensor([True]), torch.tensor([1.0, 0.0]), torch.tensor([[True, False]])]
)
def test_a_wrong_keep_is_named(tiny: Make, guidance: Guide, keep: torch.Tensor) -> None:
    with pytest.raises(ModelError, match="`keep`"):
        tiny(guidance_dropout=0.1)(torch.rand(2, 3, 16, 16).double(), guidance(2), keep)


@pytest.mark.parametrize(
    ("change", "word"), [({"width": 9}, "width"), ({"num_heads": (1, 2, 4, 7)}, "level 4")]
)
def test_a_network_that_cannot_be_is_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        Restorer(replace(ModelConfig(), **change))


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (torch.rand(3, 16, 16), "batch"),
        (torch.rand(1, 4, 16, 16), "RGB"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.rand(1, 3, 8, 8).double(), "another type"),
    ],
)
def test_wrong_images_are_named(
    tiny: Make, guidance: Guide, image: torch.Tensor, word: str
) -> None:
    with pytest.raises(ModelError, match=word):
        tiny(torch.float32)(image, guidance())


def test_bytes_are_restored_as_the_numbers_that_they_stand_for(tiny: Make, guidance: Guide) -> None:
    restorer = tiny(torch.float64)
    image = torch.randint(0, 256, (2, 3, 17, 30), dtype=torch.uint8)
    with torch.no_grad():
        expected = restorer(image.double() / 255, guidance(2))
    found = restorer.restore_bytes(image, guidance(2))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    with pytest.raises(ModelError, match="8 bits"):
        restorer.restore_bytes(expected, guidance(2))
    with pytest.raises(ModelError, match="batch"):
        restorer.restore_bytes(image[0], guidance(2))


@pytest.mark.parametrize(("height", "width"), [(1, 3), (2, 17), (5, 16), (33, 7), (16, 16)])
def test_padding_reflects_again_and_again_where_the_image_is_small(height: int, width: int) -> None:
    values = torch.arange(3 * height * width, dtype=torch.uint8).view(1, 3, height, width)
    rows = -height % 16, -width % 16
    expected = np.pad(values.numpy(), ((0, 0), (0, 0), (0, rows[0]), (0, rows[1])), mode="reflect")
    np.testing.assert_array_equal(pad_to_multiple(values, 16).numpy(), expected)
