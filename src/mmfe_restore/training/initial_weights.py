"""The network that a run begins with: its weights (``--init-from``), and how it reads guidance."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mmfe_cache.errors import ModelError
from mmfe_cache.guides.lineage import differing_guide, guide_fingerprint, only_precision
from mmfe_cache.progress import Progress
from mmfe_restore.data import JOINT, PROMPT, SampleGuidance
from mmfe_restore.model import Restorer
from mmfe_restore.model.checkpoints import GUIDED, check_fit, read_config, read_weights
from mmfe_restore.model.folders import recorded_guide, with_trained_prompt
from mmfe_restore.recipes.schema import READING, Recipe

_OURS = (".safetensors", ".ckpt")
"""What weights of a whole network lie in: a model's folder, a step of a run."""

SATURATED = 0.01
"""An expert weight below this, or above 1 less this, is saturated.

A sigmoid's slope there is below 0.01, against 0.25 in its middle.
"""

SATURATED_SHARE = 0.05
"""The share of saturated weights from which training warns.

A new router's sums have a standard deviation of 0.58 times the embeddings' RMS, so that 5 % are
saturated at RMS 4 and 11 % at RMS 5. What becomes of them is measured in docs/guides.md.
"""

SATURATION_SAMPLES = 64
"""Cached answers that are looked at, spread evenly over the training samples."""


def new_restorer(recipe: Recipe, init_from: Path | None) -> Restorer:
    """The network that a run begins with.

    Args:
        recipe: says which.
        init_from: weights of an equal network, or Restormer's for the backbone; None draws all
            weights.

    Raises:
        ModelError: the weights are another network's, or damaged.
    """
    restorer = _initial(recipe, init_from)
    restorer.recipe = recipe  # which also says how it is to read embeddings
    return restorer


def holds_guided(init_from: Path | None) -> bool:
    """Whether these weights, which fit, are a guided network's, not a Restormer's alone."""
    if init_from is None or init_from.suffix not in _OURS:
        return False
    if init_from.suffix != ".safetensors":
        return any(name.startswith(GUIDED) for name in read_weights(init_from))
    with safe_open(init_from, "pt") as weights:
        return any(name.startswith(GUIDED) for name in weights.keys())  # noqa: SIM118


def reads_otherwise(
    recipe: Recipe, init_from: Path | None, cache: Mapping[str, Any] | None
) -> str | None:
    """How a run reads embeddings otherwise than the network whose weights it begins with did.

    Training goes on from such weights, for that may be what is wanted; but what they have learnt
    of guidance is then of little use, and nothing else would tell.

    Args:
        recipe: of the run.
        init_from: the file of the weights; what their network read is in the config.json beside it.
        cache: the fingerprint of the store that the run reads; None where there is none yet.

    Returns:
        A sentence for the user, with the remedy; None where all is alike, or nothing is recorded.
    """
    if init_from is None or not recipe.model.reads or not holds_guided(init_from):
        return None
    try:
        before = read_config(init_from.parent)[1]
    except ModelError:  # weights of somebody else's, beside a file of theirs or none
        return None
    if before is None or not before.model.reads:
        return None
    recorded = recorded_guide(init_from.parent)
    first = with_trained_prompt(before, recorded).guide
    now = with_trained_prompt(recipe, cache).guide
    differing = [
        (f"guide.{key}", getattr(first, key), getattr(now, key))
        for key in READING
        if getattr(first, key) != getattr(now, key)
    ]
    asked = first.prompts or (first.asked,)
    if not set(now.prompts or (now.asked,)) <= set(asked):
        differing.append(("guide.prompt", asked[0], now.asked))
    said = [f"{key} is {here}, and was {there}" for key, there, here in differing]
    # Words in quotes, for a colon in a prompt would be YAML's.
    words = [
        f"{key}={there if ' ' not in there else json.dumps(there)}" for key, there, _ in differing
    ]
    cure = " ".join(f"--set {shlex.quote(word)}" for word in words)
    cures = [f"{cure} reads as before"] if cure else []
    if recorded is not None and cache is not None:
        here = guide_fingerprint(cache)
        same = {key: here[key] for key in (PROMPT, JOINT) if key in here}
        states = differing_guide({**recorded, **same}, here)
        if not only_precision(states):
            said.append(f"another state of the guide built the cache ({'; '.join(states)})")
            cures.append(f"a cache of the guide {before.guide.name} as it was then is the same")
    if not said:
        return None
    return (
        f"{init_from} holds a network that read its guide otherwise (what it learnt of guidance "
        f"may be lost): {'; '.join(said)}; {'; '.join(cures)}"
    )


def _initial(recipe: Recipe, init_from: Path | None) -> Restorer:
    if init_from is None:
        return Restorer(recipe.model)
    if init_from.suffix in _OURS:
        state = read_weights(init_from)
        if any(name.startswith(GUIDED) for name in state):
            restorer = Restorer(recipe.model)
            full = {name: tensor.float() for name, tensor in state.items()}
            check_fit(restorer, full, init_from)
            restorer.load_state_dict(full)
            return restorer
    return Restorer.from_restormer(init_from, recipe.model)


def saturated_share(weights: Mapping[str, Tensor]) -> float:
    """The share of saturated expert weights among all sites, samples and experts.

    Args:
        weights: site name to S (B, N) in (0, 1), of one site at least.
    """
    every = torch.cat([one.flatten() for one in weights.values()])
    return float(((every < SATURATED) | (every > 1 - SATURATED)).float().mean())


def warn_if_saturated(
    restorer: Restorer,
    recipe: Recipe,
    guidance: Sequence[SampleGuidance],
    count: int,
    progress: Progress,
) -> None:
    """Say so where the routers of a new network are saturated on the embeddings it will read.

    Args:
        restorer: as it begins.
        recipe: that it will be trained by.
        guidance: of the training samples, by prompt.
        count: of the training samples.
        progress: where to warn.
    """
    if not guidance or "answer" not in recipe.model.reads:
        return
    samples = min(SATURATION_SAMPLES, count)
    chosen = [count * place // samples for place in range(samples)]
    answers = guidance[0].read_answers(chosen, recipe.training_views[0])
    answers = answers.to(device=restorer.device, dtype=restorer.dtype)
    with torch.no_grad():
        share = saturated_share(restorer.router_weights(answers))
    if share < SATURATED_SHARE:
        return
    rms = float(answers.float().square().mean().sqrt())
    cure = (
        "another guide, or embeddings of a smaller scale"
        if recipe.guide.normalise == "rms"
        else "--set guide.normalise=rms divides every embedding by its own RMS"
    )
    progress.warn(
        f"the routers start saturated: {share:.0%} of their weights for {len(chosen)} cached "
        f"answers of RMS {rms:.3g} are below {SATURATED} or above {1 - SATURATED}, where they "
        f"hardly learn; {cure}"
    )
