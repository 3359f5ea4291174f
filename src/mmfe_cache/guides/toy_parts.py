"""What toy checkpoints of all families are made of: a tokenizer of bytes, and chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import pre_tokenizers
from transformers import AddedToken, Qwen2Tokenizer

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
) -> Qwen2Tokenizer:
    """A tokenizer with one token a byte and ``special`` above them; it knows every text.

    Args:
        special: special tokens, in the order of their ids from 256 on.
        named: those among them that a processor asks the tokenizer for by an attribute's name.
    """
    extra: dict[str, Any] = {} if named is None else {"extra_special_tokens": dict(named)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(
        vocab={**{letter: index for index, letter in enumerate(alphabet)}, special[0]: 256},
        merges=[],
        model_max_length=32768,
        **extra,
    )
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special],
        special_tokens=True,
    )
    return tokenizer


def token_id(tokenizer: Qwen2Tokenizer, token: str) -> int:
    """The id of one token of ``tokenizer``."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found
