"""The model card beside a network's weights: what it is, how it was made, how it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.guides.registry import GUIDES
from mmfe_restore.model.folders import name_of_guide

if TYPE_CHECKING:
    from torch import nn

    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.recipes.schema import Recipe


def count_parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_card(restorer: Restorer, recipe: Recipe | None) -> str:
    """A README.md with the Hub's front matter: what it is, how it was made, how to use it.

    Args:
        restorer: the network.
        recipe: that it was trained by; None where that is not known.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        # Whoever trains a network chooses its licence, within those of its data.
        license="other",
        license_name="not-stated",
        library_name="mmfe",
        pipeline_tag="image-to-image",
        tags=[
            "image-restoration",
            "all-in-one",
            *(["multimodal-llm"] if _guide_kind(restorer, recipe) in _MULTIMODAL_LLMS else []),
            *(["mixture-of-experts"] if restorer.config.experts != "none" else []),
        ],
        # No `datasets`: a recipe names a layout, which a set of the user's own may have.
        metrics=["psnr", "ssim"],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_card_text(restorer, recipe)}"))


_MULTIMODAL_LLMS = ("qwen2.5-vl", "fastvlm", "image-text")
"""The kinds of guides that are one."""


def _guide_kind(restorer: Restorer, recipe: Recipe | None) -> str | None:
    """The kind of guide of the training, as fingerprints have it; None where nobody says."""
    recorded = (restorer.guide_fingerprint or {}).get("guide.guide")
    if recorded is not None or recipe is None:
        return recorded
    known = GUIDES.get(recipe.guide.name)
    return None if known is None else known.kind


def _card_text(restorer: Restorer, recipe: Recipe | None) -> str:
    config = restorer.config
    reads = ", ".join(f"E_{name.capitalize()}" for name in config.reads) or "nothing"
    unguided = restorer.has_null_guidance or not config.reads
    kind = _guide_kind(restorer, recipe)
    if not config.reads:
        guided = "without a guide"
    elif kind in _MULTIMODAL_LLMS:
        guided = "guided by what a multimodal LLM sees in them"
    elif kind is None:
        guided = "guided by embeddings of them"
    else:
        guided = f"guided by embeddings of a guide of the kind {kind}"
    lines = [
        f"# An mmfe restorer{f' ({recipe.name})' if recipe else ''}",
        "",
        "Restores photographs that suffer from several degradations at once,",
        f"{guided}. Built after MMFE-IR",
        "(arXiv 2605.11444); this is not the authors' code.",
        "",
        "**Licence.** Not stated: the network's maker has to choose one that fits its training",
        "data, in the field `license` above.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {count_parameters(restorer) / 1e6:.3f} M |",
        f"| experts | {config.num_experts if config.experts != 'none' else 0} ({config.experts}) |",
        f"| guidance read | {reads}, D = {config.guidance_dim} |",
        f"| runs without a guide | {'yes' if unguided else 'no'} |",
    ]
    if recipe is not None:
        stages = ", ".join(
            f"{s.epochs} epochs at {s.resolution}² (batch {s.batch_size})"
            for s in recipe.train.stages
        )
        steps = recipe.train.max_steps
        ended = f", ended after {steps} steps" if steps else ""
        lines += [
            f"| guide | {name_of_guide(recipe.guide.name)} |",
            f"| training data, as `--dataset` reads it | {recipe.data.dataset} |",
            f"| schedule | {stages}{ended} |",
        ]
    lines += [
        "",
        "```python",
        "from mmfe_cache.images import read_rgb8",
        "from mmfe_restore import Restorer",
        "from mmfe_restore.inference import guide_for, restore_image",
        "",
        'restorer = Restorer.from_pretrained("path/or/owner/name")',
        'photo = read_rgb8("photo.jpg")  # (H, W, 3) uint8',
        *(
            [
                "look = guide_for(restorer).look(photo)  # the guide that it was trained with",
                "restored = restore_image(restorer, photo, look)  # as photo",
            ]
            if config.reads
            else ["restored = restore_image(restorer, photo)  # as photo"]
        ),
        "```",
        "",
        "or `mmfe restore PHOTO -o OUT --checkpoint PATH`.",
        "",
    ]
    return "\n".join(lines)
