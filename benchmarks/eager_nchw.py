"""The same network as most repositories run theirs: eagerly, on whole NCHW maps.

What `benchmarks.restore_photo` compares with. Every 1×1 convolution is a `conv2d`, LayerNorm
permutes to pixels and back, and Q and K are normalised before their product, as in Restormer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_cache.embeddings import Embeddings
from mmfe_restore.model import Restorer
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE
from mmfe_restore.model.restorer import pad_to_multiple
from mmfe_restore.model.restormer import (
    GDFN,
    MDTA,
    Downsample,
    LayerNorm,
    TransformerBlock,
    Upsample,
)


def restore(restorer: Restorer, image: Tensor, embeddings: Embeddings) -> Tensor:
    """What ``restorer(image, embeddings)`` gives: (B, 3, H, W) to (B, 3, H, W)."""
    padded = pad_to_multiple(image, restorer.size_multiple)
    guidance = (embeddings.image, embeddings.joint, embeddings.answer)
    x = restorer.patch_embed.proj(padded)
    x = restorer.run_levels(EagerNchw(), x, restorer.bands(padded), guidance)
    return (restorer.output(x) + padded)[..., : image.shape[-2], : image.shape[-1]]


class EagerNchw:
    """A runner whose maps are (B, C, H, W)."""

    def block(self, block: TransformerBlock, x: Tensor) -> Tensor:
        """One Transformer block."""
        x = x + _mdta(block.attn, _norm(block.norm1, x))
        return x + _gdfn(block.ffn, _norm(block.norm2, x))

    def fuse(self, mgfb: MGFB, x: Tensor, guidance: Tensor) -> Tensor:
        """One MGFB."""
        attn = mgfb.attn
        q = attn.query_dwconv(attn.query(_norm(mgfb.norm1, x)))
        tokens = attn.project_guidance(guidance)
        heads = (attn.heads, -1)
        k, v = (
            part(tokens).unflatten(-1, heads).transpose(1, 2) for part in (attn.key, attn.value)
        )
        pixels = q.flatten(2).unflatten(1, heads).transpose(2, 3)  # (B, h, P, d)
        weights = (pixels @ k.transpose(2, 3) * k.shape[-1] ** -0.5).softmax(dim=-1)
        seen = (weights @ v).transpose(2, 3).reshape(x.shape)
        x = x + attn.project_out(seen)
        return x + _gdfn(mgfb.ffn, _norm(mgfb.norm2, x))

    def mix(self, mofe: MoFE, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """One MoFE, whose ``bands`` are (B, H', W', K) as everywhere."""
        mixed = mofe.experts(bands, mofe.router(answer)).permute(0, 3, 1, 2)
        mixed = F.interpolate(mixed, size=x.shape[-2:], mode="bilinear", align_corners=False)
        attn = mofe.attn
        k, v = attn.key_value_dwconv(attn.key_value(mofe.project(mixed))).chunk(2, dim=1)
        q = attn.query_dwconv(attn.query(x))
        return x + attn.project_out(_attend(q, k, v, attn.temperature))

    def down(self, down: Downsample, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the next level of the encoder."""
        return down.body(x), x

    def up(self, up: Upsample, x: Tensor, skip: Tensor, reduce: nn.Conv2d | None) -> Tensor:
        """To the next level of the decoder."""
        joined = torch.cat([up.body(x), skip], dim=1)
        return joined if reduce is None else reduce(joined)


def _norm(norm: LayerNorm, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    pixels = norm(x.flatten(2).transpose(1, 2).contiguous())
    return pixels.transpose(1, 2).reshape(batch, channels, height, width)


def _mdta(attn: MDTA, x: Tensor) -> Tensor:
    q, k, v = attn.qkv_dwconv(attn.qkv(x)).chunk(3, dim=1)
    return attn.project_out(_attend(q, k, v, attn.temperature))


def _attend(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    shape = v.shape
    q, k, v = (part.flatten(2).unflatten(1, (len(temperature), -1)) for part in (q, k, v))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    attention = (q @ k.transpose(2, 3) * temperature).softmax(dim=-1)
    return (attention @ v).reshape(shape)


def _gdfn(ffn: GDFN, x: Tensor) -> Tensor:
    gate, value = ffn.dwconv(ffn.project_in(x)).chunk(2, dim=1)
    return ffn.project_out(F.gelu(gate) * value)
