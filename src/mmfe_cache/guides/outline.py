"""A guide by its configuration alone: what a build would cost before gigabytes are fetched."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmfe_cache.embeddings import DEFAULT_PROMPT, Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import PixelGuide, check_image
from mmfe_cache.guides.checkpoint import conversation, load_processor
from mmfe_cache.guides.checkpoint_files import checkpoint_folder, missing_download
from mmfe_cache.guides.image_text import ImageTextGuide
from mmfe_cache.guides.mllm import MllmGuide
from mmfe_cache.guides.registry import GuideInfo, find_guide, read_config
from mmfe_cache.samples import ImageArray

CHARACTERS_A_TOKEN = 5
"""Of an English question, where no tokenizer is here to count; exact for the paper's."""


class _Unloaded(ImageTextGuide):
    """An image-text model that lays out its sequences and has no network to read them."""

    def _load_network(self, device: torch.device) -> Any:
        return None


class GuideOutline(PixelGuide):
    """A guide without its weights: it counts the tokens that the guide would read.

    Attributes:
        download: bytes of weights that are still to be fetched; None where unknown.
        exact: whether the checkpoint's own tokenizer and processor do the counting, or there is
            nothing to count, in a guide without language. Else the published processor is assumed
            and the question's tokens are estimated.

    Args:
        info: what the registry says of the guide.
        directory: its checkpoint as far as it is here: its config.json at least; None where
            nothing of it is.
        prompt: the question.

    Raises:
        GuideError: what is there of the checkpoint cannot be read.
    """

    takes_prompt = True

    def __init__(self, info: GuideInfo, directory: Path | None, prompt: str) -> None:
        super().__init__(info.name, info.dim, None, torch.device("cpu"))
        self._info, self._directory = info, directory
        module, _, name = info.implementation.partition(":")
        kind = getattr(import_module(module), name)
        self._kind: type[MllmGuide] | None = kind if issubclass(kind, MllmGuide) else None
        self._whole: _Unloaded | None = None
        self._sizes: dict[tuple[int, int], int] = {}
        self._processor: Any = None
        self._question = 0
        self.exact, self.download = True, info.download
        if directory is not None and issubclass(kind, ImageTextGuide):
            # Its processor alone knows how question and picture become one sequence.
            self._whole = _Unloaded(
                directory, info, device=self.device, precision="float32", prompt=prompt
            )
            # A tokenizer whose file is missing knows no image token, and says so only here.
            self._whole.sequence_tokens(np.zeros((224, 224, 3), np.uint8))
            self.download = missing_download(info, directory)
        if self._kind is None:
            return
        self._config = {} if directory is None else read_config(directory)
        self.download = missing_download(info, directory)
        if directory is not None and _can_count(directory):
            self._processor = load_processor(directory, self._kind.processor_class)
            text = conversation(self._processor, prompt, directory)
            # The picture's own token stands for all those that it becomes.
            self._question = len(self._processor.tokenizer(text)["input_ids"]) - 1
        else:
            self._question = self._kind.turn_tokens + -(-len(prompt) // CHARACTERS_A_TOKEN)
        self.exact = self._processor is not None

    def with_prompt(self, prompt: str | None) -> GuideOutline:
        """The outline of the same guide that is asked ``prompt``; None is the paper's question."""
        question = DEFAULT_PROMPT if prompt is None else prompt
        return GuideOutline(self._info, self._directory, question)

    def prepare(self, image: ImageArray) -> int:
        """How many image tokens a picture (H, W, 3) becomes; of an image-text model, all tokens."""
        size = check_image(image).shape[:2]
        if size not in self._sizes:
            self._sizes[size] = self._count_tokens(image)
        return self._sizes[size]

    def _count_tokens(self, image: ImageArray) -> int:
        if self._whole is not None:
            return self._whole.sequence_tokens(image)
        if self._kind is None:
            return 0
        return self._kind.image_tokens(self._processor, self._config, *image.shape[:2])

    def sequence_tokens(self, prepared: Any) -> int:
        """How many tokens the model would read for one prepared image."""
        return self._question + int(prepared)

    def fingerprint(self) -> Mapping[str, Any]:
        """Empty: what decides the embeddings is in the weights."""
        return {}

    def describe(self) -> Mapping[str, Any]:
        """What is known of it."""
        return {"name": self.name, "dim": self.dim, "weights": None, "download": self.download}

    def _shape(self, prepared: Any) -> Hashable:
        return prepared

    def _encode_batch(self, prepared: Sequence[Any]) -> Embeddings:
        raise AssertionError("start refuses a guide without a network")


def outline_guide(name_or_dir: str | Path, prompt: str | None = None) -> GuideOutline:
    """The outline of a guide, named as for `load_guide`, whose weights need not be here.

    Raises:
        UsageError: there is no such guide.
        GuideError: what is there of the checkpoint cannot be read.
    """
    info = find_guide(name_or_dir)
    directory = checkpoint_folder(info, name_or_dir)
    return GuideOutline(info, directory, DEFAULT_PROMPT if prompt is None else prompt)


def _can_count(directory: Path) -> bool:
    """Whether there is a tokenizer, an image processor and a chat template."""
    processors = ("preprocessor_config.json", "processor_config.json")
    if not (directory / "tokenizer.json").is_file():
        return False
    if not any((directory / name).is_file() for name in processors):
        return False
    try:
        return getattr(load_processor(directory, object), "chat_template", None) is not None
    except GuideError:
        return False
