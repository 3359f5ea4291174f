"""Guides: frozen models that turn a degraded picture into E_Image, E_Joint and E_Answer.

Importing this imports neither torch nor transformers; `load_guide` imports what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmfe_cache.embeddings import DEFAULT_PROMPT
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.registry import (
    GUIDES,
    GuideInfo,
    find_guide,
    guide_dim,
)

if TYPE_CHECKING:
    from mmfe_cache.guides.base import Precision
    from mmfe_cache.guides.protocol import Guide

__all__ = ["DEFAULT_PROMPT", "GUIDES", "GuideInfo", "find_guide", "guide_dim", "load_guide"]


def load_guide(
    name_or_dir: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    prompt: str | None = None,
) -> Guide:
    """Load a guide.

    Args:
        name_or_dir: a name of ``GUIDES``, a directory in Hugging Face format, or a file written by
            ``mmfe guide train``.
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"`` (bfloat16 on a GPU, float32 on a CPU), ``"float32"``,
            ``"bfloat16"`` or ``"float16"``; ``scene`` and ``oracle`` always compute in float32.
        prompt: the question put to an MLLM; None asks the paper's.

    Raises:
        UsageError: there is no such guide, or a prompt is given to one that takes none.
        GuideError: its checkpoint is missing, of the wrong class or incomplete.
    """
    info = find_guide(name_or_dir)
    if info.kind in ("scene", "oracle") and prompt not in (None, DEFAULT_PROMPT):
        raise UsageError(
            f"the guide {info.name} takes no prompt", got=repr(prompt), expected="no --prompt"
        )
    if info.kind == "oracle":
        from mmfe_cache.guides.oracle import OracleGuide

        return OracleGuide()
    from mmfe_cache.machine import pick_device

    chosen = pick_device(device)
    if info.kind == "scene":
        from mmfe_cache.guides.scene import SceneGuide

        shipped = str(name_or_dir) in GUIDES
        return SceneGuide(None if shipped else Path(name_or_dir), device=chosen)
    from mmfe_cache.guides.local_files import find_checkpoint

    directory = find_checkpoint(info, name_or_dir)
    question = DEFAULT_PROMPT if prompt is None else prompt
    if info.kind == "qwen2.5-vl":
        from mmfe_cache.guides.qwen import QwenGuide

        return QwenGuide(directory, info, device=chosen, precision=precision, prompt=question)
    from mmfe_cache.guides.fastvlm import FastVlmGuide

    return FastVlmGuide(directory, info, device=chosen, precision=precision, prompt=question)
