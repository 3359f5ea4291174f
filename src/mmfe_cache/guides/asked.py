"""What the guides that are asked a question share: the question, and pooling what they answer.

Shape suffixes: B batch, T tokens of the sequence, N image tokens, D.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mmfe_cache.embeddings import DEFAULT_PROMPT, Embeddings, JointTokens
from mmfe_cache.errors import UsageError
from mmfe_cache.guides.base import PixelGuide, Precision, pick_dtype
from mmfe_cache.guides.checkpoint import conversation
from mmfe_cache.guides.hf_files import checkpoint_digest, find_checkpoint
from mmfe_cache.guides.pooling import pool_grid, pool_sequence
from mmfe_cache.guides.registry import GuideInfo
from mmfe_cache.machine import pick_device

_CPU_BATCH = 8
"""Images that a CPU runs at once: about what its caches hold; more is slower (measured)."""


class AskedGuide(PixelGuide):
    """An MLLM read after one forward pass of its base model; nothing is generated.

    Attributes:
        joint: which tokens ``joint`` pools: ``all`` of the sequence, or those ``from-image`` on.
            The ones before the picture have not seen it: whatever is pooled of them alone is the
            same for every picture.
        image_pooling: how the fingerprint says ``image`` is pooled.
        prompt: the question.

    Args:
        directory: a local checkpoint in Hugging Face format.
        info: what the registry says of it.
        device: where to run.
        precision: of weights and arithmetic; pooling is float32 at least.
        prompt: the question.

    Raises:
        GuideError: the checkpoint is incomplete or of the wrong class.
        UsageError: the prompt is empty or the precision unknown.
    """

    takes_prompt = True
    joint: JointTokens = "all"
    image_pooling: ClassVar[str] = "mean + 4x4 grid of image tokens"

    def __init__(
        self,
        directory: Path,
        info: GuideInfo,
        *,
        device: torch.device,
        precision: Precision,
        prompt: str,
    ) -> None:
        self.prompt = _question(prompt)
        self.dtype, self.tf32 = pick_dtype(precision, device), precision == "tf32"
        self._directory, self._info = directory, info
        self._processor = self._load_processor()
        self.conversation()  # a template of no use is found before gigabytes are read
        super().__init__(info.name, info.dim, self._load_network(device), device)

    @classmethod
    def load(
        cls,
        info: GuideInfo,
        name_or_dir: str | Path,
        *,
        device: str,
        precision: Precision,
        prompt: str | None,
        joint: JointTokens = "all",
    ) -> Self:
        """Load the checkpoint that ``info`` describes; see `load_guide`."""
        chosen = pick_device(device)
        directory = find_checkpoint(info, name_or_dir)
        question = DEFAULT_PROMPT if prompt is None else prompt
        guide = cls(directory, info, device=chosen, precision=precision, prompt=question)
        guide.joint = joint
        return guide

    @abstractmethod
    def _load_processor(self) -> Any:
        """The checkpoint's processor."""

    @abstractmethod
    def _load_network(self, device: torch.device) -> Any:
        """The checkpoint's base model, on ``device``."""

    @abstractmethod
    def _origin(self) -> Mapping[str, str | None]:
        """How the fingerprint names the model that the checkpoint is of."""

    @abstractmethod
    def _read(self, prepared: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """``image``, ``joint`` and ``answer`` of one batch, on the device; see `_pool`."""

    def asking(self, prompt: str | None) -> Self:
        """The same guide asking ``prompt``, None the paper's question; they share one network.

        Raises:
            UsageError: the prompt is empty.
        """
        other = copy(self)
        other._network = self._network  # which copies and pickles leave behind
        other.prompt = DEFAULT_PROMPT if prompt is None else _question(prompt)
        other.calls = 0
        return other

    def conversation(self) -> str:
        """The text that the model reads, by the checkpoint's own template; one image token.

        Raises:
            GuideError: the template is no valid one.
        """
        return conversation(self._processor, self.prompt, self._directory)

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        read = "all tokens" if self.joint == "all" else "the tokens from the first image token on"
        return {
            "guide": self._info.kind,
            **self._origin(),
            "checkpoint": self._digest,
            "processor": type(self._processor.image_processor).__name__,
            "prompt": self.prompt,
            "pooling": f"{self.image_pooling}; mean + 16 runs of {read}; last token",
            # Only where it is not the default: other caches keep their fingerprints.
            **({} if self.joint == "all" else {"joint": self.joint}),
            "dtype": self.precision,
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        return {
            "name": self.name,
            "kind": self._info.kind,
            "dim": self.dim,
            "licence": self._info.licence,
            "weights": str(self._directory),
            "prompt": self.prompt,
            "dtype": self.precision,
            "device": str(self.device),
        }

    @cached_property
    def _digest(self) -> str:
        return checkpoint_digest(self._directory)

    def _encode_batch(self, prepared: Sequence[Any]) -> Embeddings:
        step = _CPU_BATCH if self.device.type == "cpu" else len(prepared)
        parts = [self._read(prepared[at : at + step]) for at in range(0, len(prepared), step)]
        image, joint, answer = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return Embeddings(image, joint, answer)

    def _pool(
        self, hidden_BTD: Tensor, seen_BND: Tensor, grid: tuple[int, int] | None, first: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pool one batch.

        Args:
            hidden_BTD: hidden states after the final norm.
            seen_BND: the image tokens among them, row by row.
            grid: their rows and columns; None where they are no one known rectangle.
            first: where the image tokens start in the sequence.

        Returns:
            ``image`` (B, 17, D), ``joint`` (B, 17, D) and ``answer`` (B, D).
        """
        from_here = first if self.joint == "from-image" else 0
        return (
            pool_sequence(seen_BND) if grid is None else pool_grid(seen_BND.unflatten(1, grid)),
            pool_sequence(hidden_BTD[:, from_here:]),
            hidden_BTD[:, -1].float(),
        )


def _question(prompt: str) -> str:
    if not prompt.strip():
        raise UsageError("the prompt is empty", expected="a question about the image")
    return prompt
