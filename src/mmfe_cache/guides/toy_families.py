"""Toy checkpoints of further image-text models, and the tokenizer and templates of all families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from tokenizers.processors import TemplateProcessing

TOY_WIDTH = 64
"""D of a toy checkpoint."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen's special tokens that a question about an image is made of."""

_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)
_END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

QWEN_TEMPLATE = (
    _SYSTEM + "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + _END
)
"""The same turns as Qwen2.5-VL's: default system turn, image, question, opened answer."""

FASTVLM_TEMPLATE = (
    _SYSTEM + "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ '\n' + part.text }}{% endfor %}"
    "<|im_end|>\n{% endfor %}" + _END
)
"""The same turns as the converted FastVLM checkpoints': images first, then the text."""


def byte_tokenizer(
    special: Sequence[str], named: Mapping[str, str] | None = None
) -> transformers.Qwen2Tokenizer:
    """A tokenizer with one token a byte and ``special`` above them; it knows every text.

    Args:
        special: special tokens, in the order of their ids from 256 on.
        named: those among them that a processor asks the tokenizer for by an attribute's name.
    """
    extra: dict[str, Any] = {} if named is None else {"extra_special_tokens": dict(named)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={**{letter: index for index, letter in enumerate(alphabet)}, special[0]: 256},
        merges=[],
        model_max_length=32768,
        **extra,
    )
    tokenizer.add_tokens(
        [transformers.AddedToken(token, special=True, normalized=False) for token in special],
        special_tokens=True,
    )
    return tokenizer


def token_id(tokenizer: transformers.Qwen2Tokenizer, token: str) -> int:
    """The id of one token of ``tokenizer``."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


_WIDE = 0.1
"""Standard deviation of the weights: a toy must react to its picture, or it would test nothing."""


def _make(kind: Any, **settings: Any) -> Any:
    """A configuration; its annotations leave out what it takes from its base classes."""
    return kind(**settings)


def _template(mark: str) -> str:
    """Turns with one ``mark`` where the picture stands, before the text."""
    return FASTVLM_TEMPLATE.replace("<image>", mark)


def toy_text(vocabulary: int, **more: Any) -> dict[str, Any]:
    """The configuration of a toy's language model."""
    return {
        "hidden_size": TOY_WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
        "initializer_range": _WIDE,
        **more,
    }


def _siglip(side: int, patch: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": patch,
        "vision_use_head": False,
    }


def _write_qwen2(made: Path) -> None:
    tokenizer = byte_tokenizer(SPECIAL_TOKENS)
    transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            min_pixels=56 * 56, max_pixels=256 * 28 * 28
        ),
        video_processor=transformers.Qwen2VLVideoProcessor(),
        tokenizer=tokenizer,
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(made)
    rope = {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [2, 3, 3]}
    config = _make(
        transformers.Qwen2VLConfig,
        text_config=toy_text(len(tokenizer), rope_parameters=rope),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": TOY_WIDTH, "num_heads": 2,
                       "mlp_ratio": 2, "initializer_range": _WIDE},
        **_qwen_ids(tokenizer),
    )  # fmt: skip
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(made)


def _write_qwen3(made: Path) -> None:
    tokenizer = byte_tokenizer(SPECIAL_TOKENS)
    transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=16, min_pixels=64 * 64, max_pixels=256 * 32 * 32
        ),
        video_processor=transformers.Qwen3VLVideoProcessor(),
        tokenizer=tokenizer,
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(made)
    rope = {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [4, 2, 2]}
    config = _make(
        transformers.Qwen3VLConfig,
        text_config=toy_text(len(tokenizer), head_dim=16, rope_parameters=rope),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
                       "out_hidden_size": TOY_WIDTH, "patch_size": 16,
                       "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
                       "initializer_range": _WIDE},
        **_qwen_ids(tokenizer),
    )  # fmt: skip
    transformers.Qwen3VLForConditionalGeneration(config).save_pretrained(made)


def _qwen_ids(tokenizer: Any) -> dict[str, Any]:
    return {
        "image_token_id": token_id(tokenizer, "<|image_pad|>"),
        "video_token_id": token_id(tokenizer, "<|video_pad|>"),
        "vision_start_token_id": token_id(tokenizer, "<|vision_start|>"),
        "vision_end_token_id": token_id(tokenizer, "<|vision_end|>"),
    }


def _write_idefics3(made: Path) -> None:
    tiles = [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    own = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *tiles)
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, *own))
    side, patch, scale = 64, 16, 2
    transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side}
        ),
        tokenizer=tokenizer,
        image_seq_len=(side // patch // scale) ** 2,
        chat_template=_template("<image>"),
    ).save_pretrained(made)
    config = _make(
        transformers.Idefics3Config,
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": side, "patch_size": patch,
                       "initializer_range": _WIDE},
        text_config={"model_type": "llama", "pad_token_id": 0, **toy_text(len(tokenizer))},
        scale_factor=scale,
        image_token_id=token_id(tokenizer, "<image>"),
        pad_token_id=0,
    )  # fmt: skip
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(made)


def _write_llava(made: Path) -> None:
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, "<image>", "<video>"))
    side, patch = 64, 16
    pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size={"height": side, "width": side}, image_grid_pinpoints=pinpoints
        ),
        video_processor=transformers.LlavaOnevisionVideoProcessor(
            size={"height": side, "width": side}
        ),
        tokenizer=tokenizer,
        num_image_tokens=(side // patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    ).save_pretrained(made)
    config = _make(
        transformers.LlavaOnevisionConfig,
        vision_config=_siglip(side, patch),
        text_config={"model_type": "qwen2", **toy_text(len(tokenizer))},
        image_grid_pinpoints=pinpoints,
        image_token_id=token_id(tokenizer, "<image>"),
        video_token_id=token_id(tokenizer, "<video>"),
        vision_feature_select_strategy="full",
    )
    transformers.LlavaOnevisionForConditionalGeneration(config).save_pretrained(made)


def _write_internvl(made: Path) -> None:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, *names.values()), names)
    side, patch = 64, 16
    transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(
            size={"height": side, "width": side}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        video_processor=transformers.InternVLVideoProcessor(size={"height": side, "width": side}),
        tokenizer=tokenizer,
        image_seq_length=(side // patch // 2) ** 2,
        chat_template=_template("<IMG_CONTEXT>"),
    ).save_pretrained(made)
    config = _make(
        transformers.InternVLConfig,
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": [side, side],
                       "patch_size": [patch, patch], "initializer_range": _WIDE},
        text_config={"model_type": "qwen2", **toy_text(len(tokenizer))},
        image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=(side // patch // 2) ** 2,
    )  # fmt: skip
    transformers.InternVLForConditionalGeneration(config).save_pretrained(made)


def _write_gemma3(made: Path) -> None:
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, *names.values(), "<bos>"), names)
    # As the published one: tokenizer and template both begin a text with this token.
    tokenizer.bos_token = "<bos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", token_id(tokenizer, "<bos>"))]
    )
    side, patch, count = 64, 8, 16
    transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": side, "width": side}),
        tokenizer=tokenizer,
        image_seq_length=count,
        chat_template="{{ bos_token }}" + _template("<start_of_image>"),
    ).save_pretrained(made)
    config = _make(
        transformers.Gemma3Config,
        vision_config=_siglip(side, patch),
        text_config=toy_text(len(tokenizer), head_dim=16, query_pre_attn_scalar=16),
        mm_tokens_per_image=count,
        image_token_id=token_id(tokenizer, "<image_soft_token>"),
        boi_token_id=token_id(tokenizer, "<start_of_image>"),
        eoi_token_id=token_id(tokenizer, "<end_of_image>"),
        initializer_range=_WIDE,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    # Zero as initialised: no toy would see its picture.
    torch.nn.init.normal_(
        model.model.multi_modal_projector.mm_input_projection_weight, std=TOY_WIDTH**-0.5
    )
    model.save_pretrained(made)


def _write_paligemma(made: Path) -> None:
    tokenizer = byte_tokenizer((*SPECIAL_TOKENS, "<image>"), {"image_token": "<image>"})
    tokenizer.bos_token = "<|im_start|>"
    side, patch = 64, 16
    images = _make(transformers.SiglipImageProcessor, size={"height": side, "width": side})
    images.image_seq_length = (side // patch) ** 2
    processor = transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    processor.save_pretrained(made)
    config = _make(
        transformers.PaliGemmaConfig,
        vision_config={**_siglip(side, patch), "projection_dim": TOY_WIDTH},
        text_config={"model_type": "gemma", **toy_text(len(tokenizer), head_dim=16)},
        projection_dim=TOY_WIDTH,
        image_token_id=token_id(tokenizer, "<image>"),
    )
    transformers.PaliGemmaForConditionalGeneration(config).save_pretrained(made)


FAMILY_TOYS: Mapping[str, Callable[[Path], None]] = {
    "qwen2-vl": _write_qwen2,
    "qwen3-vl": _write_qwen3,
    "idefics3": _write_idefics3,
    "llava-onevision": _write_llava,
    "internvl": _write_internvl,
    "gemma3": _write_gemma3,
    "paligemma": _write_paligemma,
}
"""How the toy of each kind is written into an empty folder."""
