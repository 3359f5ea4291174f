"""The model card: a README.md beside a network's weights, for whoever finds the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.recipes.schema import Recipe


def model_card(restorer: Restorer, recipe: Recipe | None, parameters: int) -> str:
    """A README.md with the Hub's front matter: what it is, how it was made, how to use it.

    Args:
        restorer: the network.
        recipe: that it was trained by; None where that is not known.
        parameters: how many it has.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        # Whoever trains a network chooses its licence, within those of its data.
        license="other",
        license_name="not-stated",
        library_name="mmfe",
        pipeline_tag="image-to-image",
        tags=["image-restoration", "all-in-one", "multimodal-llm", "mixture-of-experts"],
        datasets=None if recipe is None else [recipe.data.dataset],
        metrics=["psnr", "ssim"],
    )
    return str(
        ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_card_text(restorer, recipe, parameters)}")
    )


def _card_text(restorer: Restorer, recipe: Recipe | None, parameters: int) -> str:
    config = restorer.config
    reads = ", ".join(f"E_{name.capitalize()}" for name in config.reads) or "nothing"
    lines = [
        f"# An mmfe restorer{f' ({recipe.name})' if recipe else ''}",
        "",
        "Restores photographs that suffer from several degradations at once, guided by what a",
        "multimodal LLM sees in them (MMFE-IR, arXiv 2605.11444; this is not the authors' code).",
        "",
        "**Licence.** Not stated: the network's maker has to choose one that fits its training",
        "data, in the field `license` above.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {parameters / 1e6:.3f} M |",
        f"| experts | {config.num_experts if config.experts != 'none' else 0} ({config.experts}) |",
        f"| guidance read | {reads}, D = {config.guidance_dim} |",
        f"| runs without a guide | {'yes' if _unguided(restorer) else 'no'} |",
    ]
    if recipe is not None:
        stages = ", ".join(
            f"{s.epochs} epochs at {s.resolution}² (batch {s.batch_size})"
            for s in recipe.train.stages
        )
        steps = recipe.train.max_steps
        ended = f", ended after {steps} steps" if steps else ""
        lines += [
            f"| guide | {recipe.guide.name} |",
            f"| training data | {recipe.data.dataset} |",
            f"| schedule | {stages}{ended} |",
        ]
    lines += [
        "",
        "```python",
        "from mmfe_restore import Restorer",
        "",
        'restorer = Restorer.from_pretrained("path/or/owner/name")',
        "restored = restorer(image, embeddings)  # (B, 3, H, W) in [0, 1]",
        "```",
        "",
        "or `mmfe restore PHOTO -o OUT --checkpoint PATH`.",
        "",
    ]
    return "\n".join(lines)


def _unguided(restorer: Restorer) -> bool:
    return restorer.has_null_guidance or not restorer.config.reads
