"""Asking for some degradations alone: the embeddings of a picture that had no others.

A restorer takes away what its guide's embeddings say is there. ``scene`` reads what it says off
its answer by linear heads, so the answer can be moved to where the heads call a degradation absent
and everything else stays as it was said. The tokens of ``image`` and ``joint`` are a sum of what is
said and of features of their cells; the first part is exchanged, the second is the picture's.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from mmfe_cache.degradations import KINDS
from mmfe_cache.embeddings import NUM_TOKENS, Embeddings
from mmfe_cache.errors import GuideError

from .network import SceneNetwork

ABSENT_LOGIT = -5.0
"""Where the heads of label and severity are moved to: 0.7 %. Caches of partial targets were built
with this number and networks are trained on it; another one would be another way of asking."""


def ask_only(network: SceneNetwork, embeddings: Embeddings, kinds: Collection[str]) -> Embeddings:
    """What ``network`` would say if nothing but ``kinds`` were wrong with its pictures.

    Args:
        network: in evaluation mode.
        embeddings: of B pictures as it gave them: ``image`` and ``joint`` (B, 17, D), ``answer``
            (B, D), on any device.
        kinds: of `KINDS`; what is not there stays absent.

    Returns:
        The same shapes, float32. The answer is the nearest one whose heads say so; a picture with
        none but ``kinds`` keeps its embeddings.

    Raises:
        GuideError: an embedding is missing, or has other tokens.
    """
    image, joint, answer = embeddings.image, embeddings.joint, embeddings.answer
    if image is None or joint is None or answer is None or image.shape[1] != NUM_TOKENS:
        raise GuideError(
            "asking for some degradations takes all that the guide gave",
            got=", ".join(f"{name} {tuple(t.shape)}" for name, t in embeddings.present().items()),
            expected=f"image and joint of {NUM_TOKENS} tokens, and answer",
        )
    device = next(network.parameters()).device
    with torch.inference_mode():
        before = answer.to(device, torch.float32)
        after = _moved(network, before, kinds)
        pairs = zip(network.tokens_of_answer(before), network.tokens_of_answer(after), strict=True)
        changes = [(new - old).to(answer.device) for old, new in pairs]
        return Embeddings(
            image.float() + changes[0], joint.float() + changes[1], after.to(answer.device)
        )


def _moved(network: SceneNetwork, answer_BD: Tensor, kinds: Collection[str]) -> Tensor:
    """The answers nearest to ``answer_BD`` at which all other kinds are absent, (B, D)."""
    heads = (network.label_head, network.severity_head, network.trait_head)
    matrix = torch.cat([head.weight for head in heads]).double()  # (2K + 3, D)
    said = torch.cat([head(answer_BD) for head in heads], dim=1).double()
    wanted = said.clone()
    for index, kind in enumerate(KINDS):
        if kind not in kinds:
            for column in (index, len(KINDS) + index):
                wanted[:, column] = said[:, column].clamp(max=ABSENT_LOGIT)
    step = (wanted - said) @ torch.linalg.pinv(matrix).T
    return answer_BD + step.float()
