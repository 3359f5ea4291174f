"""What the MLLM guides share: the conversation, its layout, and reading the last hidden states.

Shape suffixes: B batch, T tokens of the sequence, h and w rows and columns of image tokens, D.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoProcessor
from transformers.utils import logging as transformers_logging

from mmfe_cache.embeddings import DEFAULT_PROMPT, Embeddings, JointTokens
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides.base import PixelGuide, Precision, pick_dtype, pool_grid, pool_sequence
from mmfe_cache.guides.hf_files import checkpoint_digest, find_checkpoint
from mmfe_cache.guides.registry import GuideInfo
from mmfe_cache.machine import pick_device

MAX_LAYOUTS = 256
"""How many layouts are remembered; ``native`` views may have many sizes."""


_CPU_BATCH = 8
"""Images that a CPU runs at once: about what its caches hold; more is slower (measured)."""


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


class MllmGuide(PixelGuide):
    """An MLLM read after one forward pass of its base model; nothing is generated.

    Attributes:
        network_class: the base model's class; a subclass names it.
        processor_class: its processor's class.
        joint: which tokens ``joint`` pools: ``all`` of the sequence, or those ``from-image`` on.
            The ones before the picture have not seen it: whatever is pooled of them alone is the
            same for every picture.
        turn_tokens: tokens of the conversation beside picture and question, by the published
            template and tokenizer.

    Args:
        directory: a local checkpoint in Hugging Face format.
        info: what the registry says of it.
        device: where to run.
        precision: of weights and arithmetic; pooling is float32 always.
        prompt: the question.

    Raises:
        GuideError: the checkpoint is incomplete or of the wrong class.
        UsageError: the prompt is empty or the precision unknown.
    """

    takes_prompt = True
    joint: JointTokens = "all"
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

    def __init__(
        self,
        directory: Path,
        info: GuideInfo,
        *,
        device: torch.device,
        precision: Precision,
        prompt: str,
    ) -> None:
        if not prompt.strip():
            raise UsageError("the prompt is empty", expected="a question about the image")
        self.dtype, self.tf32 = pick_dtype(precision, device), precision == "tf32"
        self.prompt = prompt
        self._directory = directory
        self._info = info
        self._processor = load_processor(directory, self.processor_class)
        network = load_network(directory, self.network_class, self.dtype, device)
        super().__init__(info.name, info.dim, network, device)
        self._layouts: dict[Hashable, Layout] = {}
        self._check_image_token()

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
    ) -> MllmGuide:
        """Load the checkpoint that ``info`` describes; see `load_guide`."""
        chosen = pick_device(device)
        directory = find_checkpoint(info, name_or_dir)
        question = DEFAULT_PROMPT if prompt is None else prompt
        guide = cls(directory, info, device=chosen, precision=precision, prompt=question)
        guide.joint = joint
        return guide

    @abstractmethod
    def _shape(self, prepared: Any) -> Hashable:
        """The prepared image's (height, width)."""

    @abstractmethod
    def _hidden(self, layout: Layout, prepared: Sequence[Any]) -> Tensor:
        """(B, T, D) hidden states after the final norm."""

    @abstractmethod
    def _lay_out(self, tokens: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor | None, int, int]:
        """Rotary positions, rows and columns of image tokens, for one image's inputs."""

    def asking(self, prompt: str | None) -> Self:
        """The same guide asking ``prompt``, None the paper's question; they share one network."""
        other = copy(self)
        other._network = self._network  # which copies and pickles leave behind
        other.prompt = DEFAULT_PROMPT if prompt is None else prompt
        other.calls, other._layouts = 0, {}
        return other

    def conversation(self) -> str:
        """The text that the model reads, by the checkpoint's own template; one image token.

        Raises:
            GuideError: the template is no valid one.
        """
        return conversation(self._processor, self.prompt, self._directory)

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
            inputs = self._processor(text=[text], images=[blank], return_tensors="pt")
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
            raise GuideError("the image tokens are not in one run", got=self._directory)
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
        shape = self._shape(prepared)
        assert isinstance(shape, tuple)
        return int(self.layout(shape).tokens.shape[1])

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings."""
        read = "all tokens" if self.joint == "all" else "the tokens from the first image token on"
        return {
            "guide": self._info.kind,
            "repository": self._info.repository,
            "checkpoint": self._digest,
            "processor": type(self._processor.image_processor).__name__,
            "prompt": self.prompt,
            "pooling": f"mean + 4x4 grid of image tokens; mean + 16 runs of {read}; last token",
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

    def _encode_batch(self, prepared: Sequence[Any]) -> Embeddings:
        shape = self._shape(prepared[0])
        assert isinstance(shape, tuple)
        layout = self.layout(shape)
        step = _CPU_BATCH if self.device.type == "cpu" else len(prepared)
        parts = [
            self._read(layout, prepared[start : start + step])
            for start in range(0, len(prepared), step)
        ]
        image, joint, answer = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return Embeddings(image, joint, answer)

    def _read(self, layout: Layout, prepared: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """``image``, ``joint`` and ``answer`` of one batch, on the device."""
        hidden_BTD = self._hidden(layout, prepared)
        count = layout.rows * layout.columns
        seen = hidden_BTD[:, layout.first : layout.first + count]
        return (
            pool_grid(seen.unflatten(1, (layout.rows, layout.columns))),
            pool_sequence(hidden_BTD[:, layout.first if self.joint == "from-image" else 0 :]),
            hidden_BTD[:, -1].float(),
        )

    def _sequence(self, layout: Layout, seen_BND: Tensor) -> Tensor:
        """(B, T, D): the words' embeddings, with the pictures' N features in their place.

        The models' own ``forward`` finds the image tokens anew in every batch and makes a GPU wait
        for the answer; here they are known to lie in one run.
        """
        words = self._network.get_input_embeddings()(layout.tokens).expand(len(seen_BND), -1, -1)
        after = layout.first + layout.rows * layout.columns
        parts = [words[:, : layout.first], seen_BND.to(words.dtype), words[:, after:]]
        return torch.cat(parts, dim=1)

    @cached_property
    def _digest(self) -> str:
        return checkpoint_digest(self._directory)

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


def conversation(processor: Any, prompt: str, directory: Path) -> str:
    """The text that a model reads, by its checkpoint's own template; one image token.

    Args:
        processor: the checkpoint's.
        prompt: the question.
        directory: the checkpoint, for the message.

    Raises:
        GuideError: the template is no valid one.
    """
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    try:
        text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as problem:
        raise GuideError(
            "the checkpoint's chat template cannot be used",
            got=f"{directory}: {type(problem).__name__}: {problem}",
            expected="the template as it was published",
            remedy="fetch the checkpoint's chat_template.jinja or tokenizer_config.json again",
        ) from problem
    return str(text)


def load_processor(directory: Path, kind: type[Any], *, needs_template: bool = True) -> Any:
    """Load a checkpoint's own processor.

    Args:
        directory: the checkpoint.
        kind: what it must be.
        needs_template: whether it must have a chat template.

    Raises:
        GuideError: its files are missing, damaged or of another class.
    """
    try:
        with quiet_transformers():
            processor = AutoProcessor.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError, TypeError) as problem:
        raise GuideError(
            "the checkpoint's processor or tokenizer cannot be loaded",
            got=f"{directory}: {_first_line(problem)}",
            expected="preprocessor_config.json, tokenizer.json and tokenizer_config.json",
        ) from problem
    if not isinstance(processor, kind):
        raise GuideError(
            "the checkpoint has a processor of the wrong class",
            got=type(processor).__name__,
            expected=kind.__name__,
        )
    if needs_template and getattr(processor, "chat_template", None) is None:
        raise GuideError("the checkpoint has no chat template", got=directory)
    return processor


def load_network(
    directory: Path,
    kind: type[Any],
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention: str | None = "sdpa",
) -> Any:
    """Load a checkpoint's model, ready to run; a base model's class leaves its ``lm_head`` out.

    Args:
        directory: the checkpoint.
        kind: the model's class, or one that picks it.
        dtype: of the weights.
        device: where they go.
        attention: how it attends; None leaves it to the model, not all of which know every way.

    Raises:
        GuideError: it is of the wrong class, tensors are missing or have a wrong shape.
    """
    try:
        with quiet_transformers():
            network, report = kind.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,  # they are reported, and refused below by name
            )
    except ImportError as problem:
        raise GuideError(
            "the checkpoint's model needs a package that is not installed",
            got=f"{directory}: {_first_line(problem)}",
            remedy="for timm, in mmfe's checkout: pip install -c constraints.txt '.[timm]'",
        ) from problem
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as problem:
        raise GuideError(
            "the checkpoint's weights cannot be loaded",
            got=f"{directory}: {_first_line(problem)}",
            expected=f"a whole {kind.__name__}",
        ) from problem
    lacking = sorted(report["missing_keys"]) + sorted(k[0] for k in report["mismatched_keys"])
    if lacking:
        raise GuideError(
            "the checkpoint lacks tensors that the model needs",
            got=f"{len(lacking)} missing or misshapen, such as {lacking[0]}",
            expected=f"every tensor of {kind.__name__}",
            remedy="fetch the checkpoint again",
        )
    return network.eval().requires_grad_(False).to(device)


@contextmanager
def quiet_transformers() -> Generator[None, None, None]:
    """Keep transformers' own bars and warnings off stderr; errors are raised all the same."""
    before, bars = transformers_logging.get_verbosity(), _bars_are_on()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()


def _bars_are_on() -> bool:
    return bool(transformers_logging.is_progress_bar_enabled())


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
