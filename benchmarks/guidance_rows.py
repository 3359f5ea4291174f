"""The rows of benchmarks/guidance_study.py: what each changes, and the recipe that it trains."""

from __future__ import annotations

from collections.abc import Sequence

from mmfe_restore.model import parameters_of
from mmfe_restore.recipes import Recipe, load_recipe

UNGUIDED = ("model.encoder_guidance=none", "model.decoder_guidance=none")
NO_EXPERTS = ("model.experts=none", "loss.mgl=0")

ROWS: dict[str, tuple[str, ...]] = {
    "baseline": (*UNGUIDED, *NO_EXPERTS),
    "wide": (*UNGUIDED, *NO_EXPERTS),  # and a width that gives it the full model's parameters
    "mgfb": NO_EXPERTS,
    "mofe": UNGUIDED,
    "full": (),
    "full-no-mgl": ("loss.mgl=0",),
    "shuffled": ("guide.control=shuffled",),
    "constant": ("guide.control=constant",),
    "view-whole": ("train.view=whole", "eval.view=whole@64"),
    "view-crop": ("train.view=crop", "eval.view=native"),
    "view-aligned": ("train.view=crop", "train.aligned_crops=4", "eval.view=native"),
}
"""What each row changes; rows without guidance are trained once, not once a guide."""

VIEW_ROWS = tuple(row for row in ROWS if row.startswith("view-"))
"""Rows that need further caches; they run where `--rows` names them."""

SEEDED = ("baseline", "full", "full-no-mgl", "shuffled", *VIEW_ROWS)
"""Rows that a sentence rests on: they run with every seed, the others once."""

BUDGET_ROWS = ("baseline", "full", "shuffled")
"""Rows that show whether the gain grows or fades with training."""

VIEW = "crop@224"
"""What the guide sees, in training and at the test: more than the network's own 64² crops."""

SIZE = (
    "model.width=16",
    "model.num_blocks=[1,1,1,2]",
    "model.num_refinement_blocks=1",
    "model.num_experts=8",
    "model.guidance_dropout=0",
    "model.expansion=2.66",
    "data.repeats={}",
    f"train.view={VIEW}",
    "train.learning_rate=1e-3",
    "train.log_every=50",
)


def recipe_of(row: str, guide: str, seed: int, steps: int, extra: Sequence[str]) -> Recipe:
    """The recipe of one row."""
    stages = f"train.stages=[{{epochs: {steps}, resolution: 64, batch_size: 8}}]"
    overrides = [
        f"guide={guide}",
        *SIZE,
        stages,
        f"train.max_steps={steps}",
        f"train.seed={seed}",
        f"eval.view={VIEW}",
        *ROWS[row],
        *extra,
    ]
    recipe = load_recipe("demo", overrides)
    if row != "wide":
        return recipe
    full = parameters_of(load_recipe("demo", [f"guide={guide}", *SIZE, *extra]).model)
    widths = range(recipe.model.width, 4 * recipe.model.width, 2)
    candidates = [load_recipe("demo", [*overrides, f"model.width={width}"]) for width in widths]
    return min(candidates, key=lambda candidate: abs(parameters_of(candidate.model) - full))
