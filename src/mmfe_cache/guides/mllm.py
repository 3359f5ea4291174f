"""MLLMs as guides: the question, the pooling of hidden states, and the layout of the sequence.

Shape suffixes: B batch, T tokens of the sequence, N image tokens, D.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmfe_cache.embeddings import DEFAULT_PROMPT, Embeddings, JointTokens
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides.base import PixelGuide, Precision, pick_dtype
from mmfe_cache.guides.checkpoint import conversation, load_network, load_processor
from mmfe_cache.guides.checkpoint_files import checkpoint_digests, find_checkpoint
from mmfe_cache.guides.pooling import pool_grid, pool_sequence
from mmfe_cache.guides.registry import GuideInfo
from mmfe_cache.machine import pick_device

_CPU_BATCH = 8
"""Images that a CPU runs at once: about what its caches hold; more is slower (measured)."""


class PromptedGuide(PixelGuide):
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
        self._set_up()

    def _set_up(self) -> None:
        """What a subclass prepares once processor and network are there."""

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

    def with_prompt(self, prompt: str | None) -> Self:
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
            GuideError: the template is not valid.
        """
        return conversation(self._processor, self.prompt, self._directory)

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        read = "all tokens" if self.joint == "all" else "the tokens from the first image token on"
        return {
            "guide": self._info.kind,
            **self._origin(),
            **self._digests,
            "processor": type(self._processor.image_processor).__name__,
            "prompt": self.prompt,
            "pooling": f"{self.image_pooling}; mean + 16 runs of {read}; last token",
            # Only where it is not the default: other caches keep their fingerprints.
            **({} if self.joint == "all" else {"joint": self.joint}),
            "dtype": self.precision,
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        more = {"prompt": self.prompt, "dtype": self.precision}
        return self._about(self._info.kind, self._info.licence, self._directory, **more)

    @cached_property
    def _digests(self) -> dict[str, str]:
        return checkpoint_digests(self._directory)

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
            grid: their rows and columns; None where they form no known rectangle.
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


MAX_LAYOUTS = 256
"""How many layouts are remembered; ``native`` views may have many sizes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The sequence for one size of image; the same for every image of that size.

    Attributes:
        tokens: (1, T) ids of system turn, image tokens, question and opened assistant turn.
        positions: (3, 1, T) rotary positions; None where the model counts by itself.
        first: where the image tokens start; they are contiguous.
        rows: h.
        columns: w.
    """

    tokens: Tensor
    positions: Tensor | None
    first: int
    rows: int
    columns: int


class MllmGuide(PromptedGuide):
    """An MLLM whose sequence is laid out once for every size of picture.

    See `PromptedGuide` for the arguments.

    Attributes:
        network_class: the base model's class; a subclass names it.
        processor_class: its processor's class.
        turn_tokens: tokens of the conversation beside picture and question, by the published
            template and tokenizer.
    """

    network_class: ClassVar[type[Any]]
    processor_class: ClassVar[type[Any]]
    turn_tokens: ClassVar[int]

    @classmethod
    @abstractmethod
    def image_tokens(
        cls, processor: Any | None, config: Mapping[str, Any], height: int, width: int
    ) -> int:
        """How many image tokens a picture of ``height`` by ``width`` pixels becomes.

        Args:
            processor: the checkpoint's own; None goes by ``config`` and what is published.
            config: its config.json; may be empty.
            height: in pixels.
            width: in pixels.

        Raises:
            GuideError: the model cannot take a picture of that shape.
        """

    def _set_up(self) -> None:
        self._layouts: dict[tuple[int, int], Layout] = {}
        self._check_image_token()

    def _load_processor(self) -> Any:
        return load_processor(self._directory, self.processor_class)

    def _load_network(self, device: torch.device) -> Any:
        return load_network(self._directory, self.network_class, self.dtype, device)

    @abstractmethod
    def _shape(self, prepared: Any) -> tuple[int, int]:
        """The prepared image's (height, width)."""

    @abstractmethod
    def _hidden(self, layout: Layout, prepared: Sequence[Any]) -> Tensor:
        """(B, T, D) hidden states after the final norm."""

    @abstractmethod
    def _lay_out(self, tokens: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor | None, int, int]:
        """Rotary positions, rows and columns of image tokens, for one image's inputs."""

    def with_prompt(self, prompt: str | None) -> Self:
        """See `PromptedGuide`; a layout holds the question's tokens and is not shared."""
        other = super().with_prompt(prompt)
        other._layouts = {}
        return other

    def layout(self, shape: tuple[int, int]) -> Layout:
        """The sequence for images prepared to ``shape`` (height, width in pixels).

        Raises:
            GuideError: the processor placed no image tokens in it, or not in one run.
        """
        known = self._layouts.get(shape)
        if known is not None:
            return known
        blank = Image.fromarray(np.zeros((*shape, 3), np.uint8))
        text = self.conversation()
        try:
            # It has its size already: under a tight pixel budget some would be resized once more.
            inputs = self._processor(
                text=[text], images=[blank], return_tensors="pt", do_resize=False
            )
        except ValueError as problem:
            raise GuideError(
                "the checkpoint's chat template and processor place no usable image tokens",
                got=repr(text[:200]),
                expected=f"one {self._processor.image_token} for one picture",
            ) from problem
        tokens: Tensor = inputs["input_ids"]
        places = (tokens[0] == self._image_token).nonzero()[:, 0]
        positions, rows, columns = self._lay_out(tokens, inputs)
        if not len(places) or len(places) != rows * columns:
            raise GuideError(
                "the checkpoint's chat template and processor place no usable image tokens",
                got=f"{len(places)} image tokens",
                expected=f"{rows * columns} for {shape[1]}×{shape[0]} pixels",
            )
        first = int(places[0])
        if int(places[-1]) - first + 1 != len(places):
            raise GuideError(
                "the image tokens are not in one run",
                got=self._directory,
                expected="the chat template and processor as they were published",
                remedy="fetch the checkpoint again",
            )
        made = Layout(
            tokens.to(self.device),
            None if positions is None else positions.to(self.device),
            first,
            rows,
            columns,
        )
        if len(self._layouts) >= MAX_LAYOUTS:
            self._layouts.pop(next(iter(self._layouts)))
        self._layouts[shape] = made
        return made

    def sequence_tokens(self, prepared: Any) -> int:
        """How many tokens the model reads for one prepared image: the question's and its own."""
        return int(self.layout(self._shape(prepared)).tokens.shape[1])

    def _origin(self) -> Mapping[str, str | None]:
        return {"repository": self._info.repository}

    def _read(self, prepared: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        layout = self.layout(self._shape(prepared[0]))
        hidden_BTD = self._hidden(layout, prepared)
        after = layout.first + layout.rows * layout.columns
        seen_BND = hidden_BTD[:, layout.first : after]
        return self._pool(hidden_BTD, seen_BND, (layout.rows, layout.columns), layout.first)

    def _sequence(self, layout: Layout, seen_BND: Tensor) -> Tensor:
        """(B, T, D): the words' embeddings, with the pictures' N features in their place.

        The models' own ``forward`` finds the image tokens anew in every batch and makes a GPU wait
        for the answer; here they are known to lie in one run.
        """
        words = self._network.get_input_embeddings()(layout.tokens).expand(len(seen_BND), -1, -1)
        after = layout.first + layout.rows * layout.columns
        parts = [words[:, : layout.first], seen_BND.to(words.dtype), words[:, after:]]
        return torch.cat(parts, dim=1)

    @property
    def _image_token(self) -> int:
        return int(self._processor.image_token_id)

    def _check_image_token(self) -> None:
        expected = int(self._network.config.image_token_id)
        rows = int(self._network.get_input_embeddings().num_embeddings)
        found = self._processor.tokenizer.convert_tokens_to_ids(self._processor.image_token)
        if found is None or int(found) != expected or not 0 <= expected < rows:
            raise GuideError(
                "the checkpoint's vocabulary has no image token that its model knows",
                got=f"{self._processor.image_token!r} is {found} in the tokenizer",
                expected=f"{expected}, as in config.json, below {rows} embeddings",
            )
