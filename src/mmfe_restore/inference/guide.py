"""The guide beside a restorer, for photographs that no cache holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import GuideError, ModelError, UsageError
from mmfe_cache.guides.fingerprints import differing_guide, only_precision
from mmfe_cache.parsing import flatten
from mmfe_cache.views import View

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings, Tokens
    from mmfe_cache.guides.base import Guide
    from mmfe_cache.guides.registry import GuideInfo
    from mmfe_cache.samples import ImageArray
    from mmfe_restore.model import Restorer
    from mmfe_restore.recipes import Recipe


class PhotographGuide:
    """A loaded guide with the view and the reading of tokens that a recipe uses.

    Args:
        guide: what looks at photographs.
        recipe: whose evaluation view and tokens are used.
        view: another view than the recipe's.
    """

    def __init__(self, guide: Guide, recipe: Recipe, view: str | None = None) -> None:
        self.guide = guide
        self.view = View.parse(view or recipe.eval.view)
        self.tokens: Tokens = recipe.guide.tokens

    def look(self, image: ImageArray) -> Embeddings:
        """The embeddings (B = 1) of one (H, W, 3) uint8 photograph."""
        return self.guide.encode([self.view.render(image)]).select(self.tokens)

    def seen(self, embeddings: Embeddings) -> dict[str, float] | None:
        """What `look` found in one photograph: severity by label, 0 where a label is absent.

        Returns:
            None for a guide that names no degradations.
        """
        from mmfe_cache.guides.scene import SceneGuide

        if not isinstance(self.guide, SceneGuide) or embeddings.answer is None:
            return None
        found = self.guide.explain(embeddings.answer)["degradations"]
        return {label: value["severity"] for label, value in found.items()}


def guide_for(
    restorer: Restorer,
    recipe: Recipe | None = None,
    name: str | None = None,
    *,
    device: str = "auto",
    view: str | None = None,
) -> PhotographGuide | None:
    """Load the guide that ``restorer`` needs.

    Args:
        restorer: the network.
        recipe: what trained it; None takes the restorer's own.
        name: another guide than the recipe's, of the same width; ``"none"`` asks for the null
            guidance.
        device: where the guide runs.
        view: another view than the recipe's.

    Returns:
        None where the network reads no embedding, or the null guidance was asked for.

    Raises:
        UsageError: a guide of another width, one that cannot see photographs, or ``none`` for a
            network without null guidance.
        ModelError: nobody says which recipe trained the network.
        GuideError: the guide's checkpoint is not there, or in another state than in training.
    """
    if not restorer.config.reads:
        return None
    if name == "none":
        if restorer.has_null_guidance:
            return None
        raise UsageError(
            "this network needs a guide: its recipe trained no null guidance",
            got="--guide none",
            expected="a guide",
            remedy="leave --guide out, or train with --set model.guidance_dropout=0.1",
        )
    recipe = recipe or restorer.recipe
    if recipe is None:
        raise ModelError(
            "the checkpoint does not say which recipe trained it",
            expected="a config.json with `recipe`, as mmfe train writes it",
            remedy="save it with save_pretrained(folder, recipe=load_recipe(NAME))",
        )
    if recipe.guide.control != "none":
        raise UsageError(
            f"the network was trained on the control `{recipe.guide.control}`, whose embeddings "
            "tell nothing of a photograph",
            expected="a network trained with guide.control=none",
        )
    guide = _load(restorer, name or recipe.guide.name, device)
    _check_state(guide, restorer.guide_fingerprint)
    return PhotographGuide(guide, recipe, view)


def _check_state(guide: Guide, trained: Mapping[str, Any] | None) -> None:
    """Refuse a guide that sees differently from the one in training; precision alone may differ."""
    if trained is None:  # a folder that `mmfe train` did not write
        return
    here: dict[str, Any] = flatten({"guide": json.loads(json.dumps(dict(guide.fingerprint())))})
    # A training store also says what the build decided, which a guide alone does not know.
    differing = differing_guide({key: trained.get(key) for key in here}, here)
    if not only_precision(differing):
        raise GuideError(
            f"the guide {guide.name} is not in the state that the network was trained with",
            got=f"{'; '.join(differing)} (trained / here)",
            expected="the same weights, prompt and pooling",
            remedy="use the guide of the training cache, or train again",
        )


def _find_own(name: str) -> GuideInfo:
    """Look up the guide that a checkpoint names.

    Raises:
        GuideError: it is a directory or file that is not here.
    """
    from mmfe_cache.guides.registry import find_guide

    try:
        return find_guide(name)
    except UsageError as problem:
        raise GuideError(
            "the guide that this network was trained with is not here",
            got=f"nothing at {name}",
            expected="the directory or file that was there in training",
            remedy="name it where it lies now: --guide PATH",
        ) from problem


def _load(restorer: Restorer, name: str, device: str) -> Guide:
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.registry import find_guide

    unguided = "or restore without it: --guide none" if restorer.has_null_guidance else None
    own = restorer.recipe is not None and name == restorer.recipe.guide.name
    try:
        found = _find_own(name) if own else find_guide(name)
        if found.reads != "pixels":
            raise UsageError(
                f"the guide {name} reads recorded severities and cannot see a photograph",
                expected="a guide that reads pixels",
                remedy=unguided or "train the network with a guide that reads pixels",
            )
        if found.dim != restorer.config.guidance_dim:
            raise UsageError(
                f"the guide {name} does not fit this network",
                got=f"embeddings of width {found.dim}",
                expected=f"width {restorer.config.guidance_dim}",
                remedy="leave --guide out, so that the network's own guide is used",
            )
        guide = load_guide(name, device=device)
    except GuideError as problem:
        raise GuideError(
            problem.problem,
            got=problem.got,
            expected=problem.expected,
            remedy="; ".join(part for part in (problem.remedy, unguided) if part) or None,
        ) from problem
    return guide
