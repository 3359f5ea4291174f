"""Guides: frozen models that turn a degraded picture into E_Image, E_Joint and E_Answer.

Importing this imports neither torch nor transformers; `load_guide` imports what it needs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mmfe_cache.embeddings import DEFAULT_PROMPT as DEFAULT_PROMPT, JointTokens
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.registry import (
    FAMILIES as FAMILIES,
    GUIDES as GUIDES,
    Family as Family,
    GuideInfo as GuideInfo,
    find_guide as find_guide,
    guide_dim as guide_dim,
    with_weights as with_weights,
)

if TYPE_CHECKING:
    from mmfe_cache.guides.base import Guide, Precision


def check_guide(name_or_dir: str | Path, weights: str | Path | None = None) -> GuideInfo:
    """What the registry says of a guide, once its files are known to be here; without torch.

    It is named as for `load_guide`.

    Raises:
        UsageError: there is no such guide.
        GuideError: its checkpoint is missing or incomplete.
    """
    name_or_dir = with_weights(name_or_dir, weights)
    info = find_guide(name_or_dir)
    if info.kind != "timm" and (
        info.repository is not None or (info.local and Path(name_or_dir).is_dir())
    ):
        from mmfe_cache.guides.checkpoint_files import find_checkpoint

        find_checkpoint(info, name_or_dir)
    return info


def load_guide(
    name_or_dir: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    prompt: str | None = None,
    weights: str | Path | None = None,
    joint: JointTokens = "all",
) -> Guide:
    """Load a guide.

    Args:
        name_or_dir: a name of ``GUIDES``, ``"timm:MODEL"``, a directory in Hugging Face format, or
            a file written by ``mmfe guide train`` or ``mmfe guide distill``.
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"`` (bfloat16 on a GPU, float32 on a CPU), ``"float32"``, ``"tf32"``
            (float32 whose products a GPU rounds), ``"bfloat16"`` or ``"float16"``; ``scene`` and
            ``oracle`` always compute in float32.
        prompt: the question put to an MLLM; None asks the paper's.
        weights: the file of a timm encoder's weights, or ``"random"``; the same as
            ``"timm:MODEL,weights=FILE"``.
        joint: which of an MLLM's tokens ``joint`` pools: ``"all"``, or those ``"from-image"`` on.

    Raises:
        UsageError: there is no such guide, or a prompt, weights or ``joint`` are given to one that
            takes none.
        GuideError: its checkpoint is missing, of the wrong class or incomplete.
    """
    name_or_dir = with_weights(name_or_dir, weights)
    info = find_guide(name_or_dir)
    module, _, name = info.implementation.partition(":")
    guide_class = getattr(import_module(module), name)
    if not guide_class.takes_prompt and prompt not in (None, DEFAULT_PROMPT):
        raise UsageError(
            f"the guide {info.name} takes no prompt", got=repr(prompt), expected="no --prompt"
        )
    if joint not in get_args(JointTokens) or (joint != "all" and not guide_class.takes_prompt):
        raise UsageError(
            f"the guide {info.name} pools no such joint tokens",
            got=joint,
            expected=" or ".join(get_args(JointTokens)) if guide_class.takes_prompt else "all",
        )
    only_mllms = {} if joint == "all" else {"joint": joint}
    return guide_class.load(
        info, name_or_dir, device=device, precision=precision, prompt=prompt, **only_mllms
    )
