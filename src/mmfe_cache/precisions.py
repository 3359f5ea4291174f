"""The words for a precision, the same in every command, recipe and function.

Short ones are Lightning's, long ones PyTorch's. A module of its own, because guides, which compute
in a data type, and restorers, which follow a recipe, must take the same words.
"""

from __future__ import annotations

from typing import Literal, cast

Precision = Literal["auto", "32", "tf32", "bf16", "16", "float32", "bfloat16", "float16"]
"""What ``--precision`` takes; ``auto`` is bf16 on a GPU and 32 on a CPU."""

LongName = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
ShortName = Literal["auto", "32", "tf32", "bf16", "16"]

_LONG = {"32": "float32", "64": "float64", "bf16": "bfloat16", "16": "float16"}
_SHORT = {long: short for short, long in _LONG.items()}


def long_name(precision: Precision) -> LongName:
    """PyTorch's word: ``bf16`` becomes ``bfloat16``; what is none stays."""
    return cast("LongName", _LONG.get(precision, precision))


def short_name(precision: Precision) -> ShortName:
    """Lightning's word: ``bfloat16`` becomes ``bf16``; what is none stays."""
    return cast("ShortName", _SHORT.get(precision, precision))
