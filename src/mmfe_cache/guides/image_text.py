"""Any image-text model in Hugging Face format as a guide, through transformers' own classes.

Slower than the guides for Qwen2.5-VL and FastVLM, which know their models: here the checkpoint's
processor lays out every batch, and the base model is run as it comes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import check_image
from mmfe_cache.guides.checkpoint import load_network, load_processor, quiet_transformers
from mmfe_cache.guides.mllm import PromptedGuide
from mmfe_cache.samples import ImageArray

_REFUSED_CODE = "code of its own, which is never run"


def text_width(directory: Path) -> int:
    """D of a checkpoint whose config.json leaves it to transformers' defaults.

    Raises:
        GuideError: transformers does not know the model.
    """
    config = _load_config(directory).get_text_config()
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int) or width < 1:
        raise GuideError("the checkpoint's configuration names no hidden_size", got=directory)
    return width


class ImageTextGuide(PromptedGuide):
    """A model that `AutoModelForImageTextToText` loads, read after one forward pass.

    See `PromptedGuide` for the arguments. ``image`` are the tokens whose id is the configuration's
    image token: pooled over a 4×4 grid where one picture is one rectangle of tokens, and in 16 runs
    where it is several tiles or its rectangle is not known. ``joint`` and ``answer`` are as of
    every MLLM.

    Raises:
        GuideError: transformers does not know the model, it or its processor takes no images, or
            the checkpoint is incomplete.
        UsageError: the prompt is empty or the precision unknown.
    """

    image_pooling = (
        "mean + 4x4 grid of image tokens where one rectangle holds them, 16 runs where not"
    )

    def _load_processor(self) -> Any:
        directory, config = self._directory, _load_config(self._directory)
        if type(config) not in AutoModelForImageTextToText._model_mapping:  # pyright: ignore[reportPrivateUsage]
            raise GuideError(
                "transformers has no image-text model for this checkpoint",
                got=f"model_type {config.model_type!r} in {directory}",
                expected="a model that AutoModelForImageTextToText loads",
            )
        self._model_type = str(config.model_type)
        self._image_token = _image_token(config, directory)
        processor = load_processor(directory, object, needs_template=False)
        if getattr(processor, "image_processor", None) is None:
            raise GuideError(
                "the checkpoint's processor takes no images",
                got=f"{type(processor).__name__} in {directory}",
                expected="a processor with an image processor (preprocessor_config.json)",
            )
        return processor

    def _load_network(self, device: torch.device) -> Any:
        kind = AutoModelForImageTextToText
        return load_network(self._directory, kind, self.dtype, device, attention=None).base_model

    def prepare(self, image: ImageArray) -> ImageArray:
        """Check one image; the processor takes a batch at a time."""
        return check_image(image)

    def sequence_tokens(self, prepared: ImageArray) -> int:
        """How many tokens the model reads for one prepared image: the question's and its own."""
        return int(self._inputs([prepared])["input_ids"].shape[1])

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        return {**super().describe(), **self._origin()}

    def _origin(self) -> Mapping[str, str | None]:
        return {"model": self._model_type}

    def conversation(self) -> str:
        """See `PromptedGuide.conversation`; some models know no turns, but an image and a text."""
        if getattr(self._processor, "chat_template", None) is not None:
            return super().conversation()
        mark = getattr(self._processor, "image_token", None)
        if not isinstance(mark, str):
            raise GuideError(
                "the checkpoint has no chat template and its processor names no image token",
                got=self._directory,
            )
        return f"{mark}{self.prompt}"

    def _shape(self, prepared: ImageArray) -> Hashable:
        return prepared.shape

    def _inputs(self, prepared: Sequence[ImageArray]) -> Any:
        """What the model takes for pictures of one size, so without padding."""
        pictures = [[Image.fromarray(image)] for image in prepared]
        text, options = self.conversation(), dict[str, Any]()
        begin = getattr(getattr(self._processor, "tokenizer", None), "bos_token", None)
        if begin and text.startswith(begin):  # the template wrote what the tokenizer would add
            options["add_special_tokens"] = False
        try:
            inputs = self._processor(
                text=[text] * len(prepared), images=pictures, return_tensors="pt", **options
            )
        except (ValueError, IndexError, TypeError, KeyError) as problem:
            raise GuideError(
                "the checkpoint's processor cannot take these pictures",
                got=f"{prepared[0].shape[1]}×{prepared[0].shape[0]} pixels: {problem}",
                expected="one image for each text",
                remedy="use a view such as whole@224",
            ) from problem
        count = (inputs["input_ids"] == self._image_token).sum(dim=1)
        if int(count.min()) == 0 or int(count.min()) != int(count.max()):
            raise GuideError(
                "the checkpoint's chat template and processor place no usable image tokens",
                got=f"{count.tolist()} tokens with the id {self._image_token}",
                expected="the same number in every text",
            )
        return inputs

    def _read(self, prepared: Sequence[ImageArray]) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self._inputs(prepared)
        tokens: Tensor = inputs["input_ids"]
        places = (tokens[0] == self._image_token).nonzero()[:, 0]
        grid = _rectangle(inputs, self._processor, places, len(prepared))
        moved = {
            key: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
            if torch.is_tensor(value)
        }
        try:
            output = self._network(**moved, use_cache=False)
        except ValueError as problem:  # transformers counts tokens and features itself
            raise GuideError(
                "the checkpoint's model, processor and chat template do not fit together",
                got=" ".join(str(problem).split())[:200],
                expected="the picture's features in the place of its tokens",
                remedy="fetch the checkpoint again",
            ) from problem
        hidden_BTD = getattr(output, "last_hidden_state", None)
        if not torch.is_tensor(hidden_BTD) or hidden_BTD.shape[:2] != tokens.shape:
            raise GuideError(
                "the model gives no hidden state for each token",
                got=type(output).__name__,
                expected=f"last_hidden_state for {tokens.shape[1]} tokens",
            )
        seen_BND = hidden_BTD[:, places.to(self.device)]
        return self._pool(hidden_BTD, seen_BND, grid, int(places[0]))


def _rectangle(
    inputs: Mapping[str, Any], processor: Any, places: Tensor, pictures: int
) -> tuple[int, int] | None:
    """Rows and columns of one picture's tokens; None where they form no known rectangle."""
    count = len(places)
    if int(places[-1]) - int(places[0]) + 1 != count:
        return None
    grids = inputs.get("image_grid_thw")
    if torch.is_tensor(grids) and len(grids) == pictures:
        merge = int(getattr(processor.image_processor, "merge_size", 1))
        rows, columns = int(grids[0, 1]) // merge, int(grids[0, 2]) // merge
        return (rows, columns) if rows * columns == count else None
    pixels = inputs.get("pixel_values")
    if not torch.is_tensor(pixels):
        return None
    # Tiles are pictures of the batch, or stand in a dimension of their own.
    single = (pixels.ndim == 4 and len(pixels) == pictures) or (
        pixels.ndim == 5 and pixels.shape[:2] == (pictures, 1)
    )
    side = round(count**0.5)
    if single and pixels.shape[-1] == pixels.shape[-2] and side * side == count:
        return side, side
    return None


def _image_token(config: Any, directory: Path) -> int:
    """The id of the tokens that a picture becomes, by the configuration."""
    for name in ("image_token_id", "image_token_index"):
        found = getattr(config, name, None)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    raise GuideError(
        "the checkpoint's configuration names no image token, so its picture's cannot be found",
        got=f"{directory / 'config.json'}, model_type {config.model_type!r}",
        expected="image_token_id or image_token_index",
    )


def _load_config(directory: Path) -> Any:
    """The checkpoint's configuration.

    Raises:
        GuideError: transformers does not know the model, or it would run code of its own.
    """
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as problem:
        said = " ".join(str(problem).split())
        raise GuideError(
            "transformers does not know this checkpoint's model",
            got=f"{directory}: it needs {_REFUSED_CODE}"
            if "trust_remote_code" in said
            else f"{directory}: {said[:200]}",
            expected="a model that AutoModelForImageTextToText loads",
        ) from problem
