"""Toy checkpoints: the real classes and file formats of the MLLM guides, with random weights.

What they see means nothing. They exist so that the code which loads a 3B checkpoint can be run,
tested and timed anywhere, without a download.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.checkpoint import quiet_transformers
from mmfe_cache.guides.registry import PUBLISHED, ToyKind, check_toy
from mmfe_cache.guides.toy_families import (
    FAMILY_TOYS,
    FASTVLM_TEMPLATE,
    QWEN_TEMPLATE,
    SPECIAL_TOKENS,
    TOY_WIDTH,
    byte_tokenizer,
    token_id,
    toy_text,
)
from mmfe_cache.io import draft_folder, write_file

QWEN_3B: dict[str, Any] = {
    "text": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
"""The dimensions of Qwen2.5-VL-3B as published; random weights of this size give true speed."""

QWEN_TOY: dict[str, Any] = {
    "text": {
        "hidden_size": TOY_WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    },
    "vision": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": TOY_WIDTH,
        "fullatt_block_indexes": [1],
    },
}
"""The dimensions of the toy."""

_OPTIONAL = ("chat_template.json", "chat_template.jinja", "vocab.json", "merges.txt")


def make_tiny(
    out: Path, *, kind: ToyKind = "qwen2.5-vl", files: Path | None = None, seed: int = 0
) -> Path:
    """Write a toy checkpoint in Hugging Face format.

    Args:
        out: the directory to make; it must not exist, or be empty.
        kind: whose classes it is made of.
        files: a directory with the published processor and tokenizer files of a Qwen2.5-VL model
            to use instead of small ones of our own.
        seed: of the random weights.

    Returns:
        ``out``.

    Raises:
        UsageError: ``kind`` is unknown, ``out`` is taken, or ``files`` does not go with ``kind``.
        GuideError: ``files`` is not complete or makes no sense, or the disk is full.
    """
    check_toy(out, kind, files)
    with draft_folder(out) as draft, quiet_transformers(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        try:
            if kind == "fastvlm":
                _write_fastvlm(draft)
            elif kind == "qwen2.5-vl":
                _write_qwen(draft, files)
            else:
                FAMILY_TOYS[kind](draft)
        except SafetensorError as problem:  # a full disk, and no OSError
            raise GuideError(
                f"the toy checkpoint {out} cannot be written",
                got=str(problem),
                remedy="free some space there and give the same command again",
            ) from problem
        for weights in draft.glob("*.safetensors"):
            # safetensors makes its files for their owner alone, whatever the umask.
            write_file(weights, weights.read_bytes())
    return out


def qwen_config(
    sizes: Mapping[str, Any], ids: Mapping[str, int], vocabulary: int
) -> Qwen2_5_VLConfig:
    """A Qwen2.5-VL configuration.

    Args:
        sizes: `QWEN_TOY` or `QWEN_3B`.
        ids: the ids of the special tokens by their text.
        vocabulary: rows of the embedding table.
    """
    text = {"vocab_size": vocabulary, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6}
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    wide = 0.02 if sizes is QWEN_3B else 0.1
    vision = {"window_size": 112, "tokens_per_second": 2, "initializer_range": wide}
    return Qwen2_5_VLConfig(
        text_config={**text, **ends, **sizes["text"], "initializer_range": wide},
        vision_config={**vision, **sizes["vision"]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def _write_qwen(made: Path, files: Path | None) -> None:
    if files is None:
        tokenizer = byte_tokenizer(SPECIAL_TOKENS)
        Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=16384 * 28 * 28),
            video_processor=Qwen2VLVideoProcessor(),
            tokenizer=tokenizer,
            chat_template=QWEN_TEMPLATE,
        ).save_pretrained(made)
        ids = {token: token_id(tokenizer, token) for token in SPECIAL_TOKENS}
        vocabulary = len(tokenizer)
    else:
        ids, vocabulary = _copy_published(files, made)
    model = Qwen2_5_VLForConditionalGeneration(qwen_config(QWEN_TOY, ids, vocabulary))
    model.save_pretrained(made)


def _copy_published(files: Path, made: Path) -> tuple[dict[str, int], int]:
    for name in (*PUBLISHED, *_OPTIONAL):
        if (files / name).is_file():
            shutil.copyfile(files / name, made / name)
    try:
        settings = json.loads((files / "tokenizer_config.json").read_text("utf-8"))
        added = settings["added_tokens_decoder"].items()
        ids = {entry["content"]: int(number) for number, entry in added}
        vocabulary = int(json.loads((files / "config.json").read_text("utf-8"))["vocab_size"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise GuideError(
            "the published files cannot be read",
            got=f"{files}: {type(problem).__name__}: {problem}",
            expected="tokenizer_config.json and config.json as Qwen publishes them",
            remedy="fetch them again",
        ) from problem
    absent = [token for token in SPECIAL_TOKENS if token not in ids]
    if absent:
        raise GuideError(
            "these are not files of a Qwen2.5-VL model",
            got=f"a vocabulary without {', '.join(absent)}",
        )
    return ids, vocabulary


def _write_fastvlm(made: Path) -> None:
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, "<image>"))
    side, patch = 256, 64
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        ),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
        chat_template=FASTVLM_TEMPLATE,
    ).save_pretrained(made)
    widths = (8, 16, 32, 64, 128)
    config = FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "do_pooling": True,
            "global_pool": "avg",
            "hidden_size": 2 * widths[-1],
            "num_features": 2 * widths[-1],
            "model_args": {
                "inference_mode": True,
                "layers": (1, 1, 1, 1, 1),
                "embed_dims": widths,
                "layer_scale_init_value": 1.0,
            },
        },
        text_config=toy_text(len(tokenizer), model_type="qwen2", tie_word_embeddings=True),
        image_token_index=token_id(tokenizer, "<image>"),
        image_seq_length=(side // patch) ** 2,
        tie_word_embeddings=True,
    )
    model = FastVlmForConditionalGeneration(config)
    # A tower as initialised hardly reacts to its picture; a toy must, or it would test nothing.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vision_tower" in name and weight.ndim == 4:
                weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
            elif "multi_modal_projector" in name and weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    model.save_pretrained(made)
