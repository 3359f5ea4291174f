"""The kinds of toy checkpoint.

A module of its own, outside the package of the guides, because the command line shows them in its
help and must start fast.
"""

from __future__ import annotations

from typing import Literal

ToyKind = Literal[
    "qwen2.5-vl",
    "fastvlm",
    "qwen2-vl",
    "qwen3-vl",
    "idefics3",
    "llava-onevision",
    "internvl",
    "gemma3",
    "paligemma",
]
"""What ``mmfe guide make-tiny --kind`` takes; the first two have guides of their own."""
