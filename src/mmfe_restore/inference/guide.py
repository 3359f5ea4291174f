"""The guide beside the restorer: finding the one that a network was trained with, and asking it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import GuideError, ModelError, UsageError
from mmfe_cache.guides.lineage import differing_guide, only_precision, stands_in
from mmfe_cache.parsing import flatten
from mmfe_cache.views import View
from mmfe_restore.inference.jobs import check_width

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings, Tokens
    from mmfe_cache.guides.base import AsksOnly, Guide
    from mmfe_cache.guides.registry import GuideInfo
    from mmfe_cache.samples import ImageArray
    from mmfe_restore.model import Restorer
    from mmfe_restore.recipes import GuideConfig, Recipe


class PhotographGuide:
    """A loaded guide with the view and the reading of tokens that a recipe uses.

    Args:
        guide: what looks at photographs.
        recipe: whose evaluation view and tokens are used.
        view: another view than the recipe's.

    Attributes:
        teacher: the guide in training, where a student takes its place; else None.
    """

    teacher: str | None = None

    def __init__(self, guide: Guide, recipe: Recipe, view: str | None = None) -> None:
        self.guide = guide
        self.view = View.parse(view or recipe.eval.view)
        self.tokens: Tokens = recipe.guide.tokens
        self._normalises = recipe.guide.normalise == "rms"

    def look(self, image: ImageArray, only: Collection[str] | None = None) -> Embeddings:
        """The embeddings (B = 1) of one (H, W, 3) uint8 photograph, as the network reads them.

        Args:
            image: the photograph.
            only: ask for these degradations alone, as `read` does.
        """
        return self.read(self.encode(image), only)

    def encode(self, image: ImageArray) -> Embeddings:
        """What the guide gives for one (H, W, 3) uint8 photograph (B = 1), all 17 tokens."""
        return self.guide.encode([self.view.render(image)])

    def read(self, found: Embeddings, only: Collection[str] | None = None) -> Embeddings:
        """What the network reads of `encode`'s embeddings.

        Args:
            found: the embeddings.
            only: single degradations; the embeddings then say that nothing else is there, so that
                a network takes away these alone. None changes nothing.

        Raises:
            UsageError: as for `require_only`.
        """
        if only is not None:
            found = self.require_only().only(found, only)
        found = found.select(self.tokens)
        return found.normalised() if self._normalises else found

    def require_only(self) -> AsksOnly:
        """The guide, where it can ask for some degradations alone.

        Raises:
            UsageError: it cannot.
        """
        from mmfe_cache.guides.base import AsksOnly

        if isinstance(self.guide, AsksOnly):
            return self.guide
        raise UsageError(
            f"the guide {self.guide.name} cannot ask for some degradations alone",
            expected="a network that is guided by scene",
            remedy="leave --only out",
        )

    def seen(self, embeddings: Embeddings) -> dict[str, float] | None:
        """What the guide found in one photograph: severity by label, 0 where a label is absent.

        Args:
            embeddings: as `encode` gives them.

        Returns:
            None for a guide that names no degradations.
        """
        from mmfe_cache.guides.scene.guide import SceneGuide

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
        UsageError: a guide of another width, one that cannot see photographs, one for a network
            that reads none, or ``none`` for a network without null guidance.
        ModelError: nobody says which recipe trained the network.
        GuideError: the guide's checkpoint is not there, or in another state than in training.
    """
    if not restorer.config.reads:
        if name not in (None, "none"):
            raise UsageError(
                "this network reads no embeddings: a guide would tell it nothing",
                got=f"--guide {name}",
                expected="a network that was trained with a guide",
                remedy="leave --guide out",
            )
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
    guide = _load(restorer, name or recipe.guide.name, device, recipe.guide)
    looking = PhotographGuide(guide, recipe, view)
    looking.teacher = _check_state(guide, restorer.guide_fingerprint, looking.view.name)
    return looking


def _check_state(guide: Guide, trained: Mapping[str, Any] | None, view: str) -> str | None:
    """Refuse a guide that sees differently from the one in training; precision alone may differ.

    Returns:
        The name of the guide in training where ``guide`` is its student; else None.
    """
    if trained is None:  # a folder that `mmfe train` did not write
        return None
    here: dict[str, Any] = flatten({"guide": json.loads(json.dumps(dict(guide.fingerprint())))})
    lineage = stands_in(guide.name, here, trained, view)
    if lineage is not None:
        return lineage.teacher
    # A training store also says what the build decided, which a guide alone does not know.
    differing = differing_guide({key: trained.get(key) for key in here}, here)
    if not only_precision(differing):
        raise GuideError(
            f"the guide {guide.name} is not in the state that the network was trained with",
            got=f"{'; '.join(differing)} (trained / here)",
            expected="the same weights, prompt and pooling",
            remedy="use the guide of the training cache, or train again",
        )
    return None


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


def _load(restorer: Restorer, name: str, device: str, trained: GuideConfig) -> Guide:
    from mmfe_cache.guides import load_guide
    from mmfe_cache.guides.registry import find_guide

    unguided = "restore without it: --guide none" if restorer.has_null_guidance else None
    own = restorer.recipe is not None and name == restorer.recipe.guide.name
    try:
        found = _find_own(name) if own else find_guide(name)
        if found.reads != "pixels":
            raise UsageError(
                f"the guide {name} reads recorded severities and cannot see a photograph",
                expected="a guide that reads pixels",
                remedy=unguided or "train the network with a guide that reads pixels",
            )
        check_width(name, found.dim, restorer.config.guidance_dim)
        if not found.takes_prompt:  # another guide than the one in training may be asked for
            return load_guide(name, device=device)
        guide = load_guide(name, device=device, prompt=trained.prompt, joint=trained.joint)
    except GuideError as problem:
        raise GuideError(
            problem.problem,
            got=problem.got,
            expected=problem.expected,
            remedy="; or ".join(part for part in (problem.remedy, unguided) if part) or None,
        ) from problem
    return guide
