"""FastVLM as a guide (Vasu et al., 2025), through the ``fast_vlm`` classes of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import FastVlmModel, LlavaProcessor

from mmfe_cache.errors import GuideError
from mmfe_cache.guides.base import check_image
from mmfe_cache.guides.mllm import Layout, MllmGuide
from mmfe_cache.samples import ImageArray

PUBLISHED_TOKENS = (1024 // 64) ** 2
"""Image tokens of a picture under the published checkpoints: one for every 64×64 of 1024×1024."""


_MAX_RATIO = 200
"""How far the sides of a picture may differ, as for Qwen2.5-VL: the long one is scaled with the
short one before its ends are cut off, to gigabytes for a line of pixels."""


class FastVlmGuide(MllmGuide):
    """See `MllmGuide` for the arguments.

    The checkpoint's own processor brings the short side to 1024 pixels and cuts out the centre, so
    a picture that is not square loses its ends under the view ``native``.
    """

    network_class = FastVlmModel
    processor_class = LlavaProcessor
    turn_tokens = 20

    @classmethod
    def image_tokens(
        cls, processor: Any | None, config: Mapping[str, Any], height: int, width: int
    ) -> int:
        """Equal for all pictures: the processor makes them equal; see `MllmGuide.image_tokens`."""
        _check_shape(height, width)
        if processor is None:
            return int(config.get("image_seq_length", PUBLISHED_TOKENS))
        blank = np.zeros((height, width, 3), np.uint8)
        pixels = processor.image_processor(images=[blank], return_tensors="np")["pixel_values"]
        rows, columns = (side // int(processor.patch_size) for side in pixels.shape[-2:])
        return rows * columns

    def prepare(self, image: ImageArray) -> ImageArray:
        """Bring one image to the checkpoint's size, (H, W, 3) uint8.

        On the CPU, whatever the guide's device: a GPU resizes bytes to other values.

        Raises:
            GuideError: it is not a picture, or more than 200 times as long as wide.
        """
        _check_shape(*check_image(image).shape[:2])
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        sized = self._processor.image_processor(
            images=[picture], return_tensors="pt", do_rescale=False, do_normalize=False
        )["pixel_values"][0]
        array: ImageArray = sized.permute(1, 2, 0).contiguous().numpy()
        return array

    def _shape(self, prepared: ImageArray) -> tuple[int, int]:
        return prepared.shape[0], prepared.shape[1]

    def _lay_out(self, tokens: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor | None, int, int]:
        height, width = inputs["pixel_values"].shape[-2:]
        patch = int(self._processor.patch_size)
        return None, int(height) // patch, int(width) // patch

    def _hidden(self, layout: Layout, prepared: Sequence[ImageArray]) -> Tensor:
        """What ``FastVlmModel.forward`` computes, without its detours; see `_sequence`."""
        pixels = self._processor.image_processor(
            images=list(self._to_device(prepared).permute(0, 3, 1, 2)),
            return_tensors="pt",
            do_resize=False,
            do_center_crop=False,
        )["pixel_values"]
        seen = self._network.get_image_features(
            pixel_values=pixels.to(self.device, self.dtype), return_dict=True
        ).pooler_output
        if not isinstance(seen, Tensor):  # older versions of transformers: one (N, D) a picture
            seen = torch.stack(list(seen))
        language = self._network.language_model
        # Without a mask the model looks for packed sequences in the positions, and a GPU waits for
        # the answer. A causal layer needs none for whole sequences; one with a window does.
        kinds = set(language.config.layer_types)
        masks = dict.fromkeys(kinds) if kinds == {"full_attention"} else None
        return language(
            inputs_embeds=self._sequence(layout, seen), attention_mask=masks, use_cache=False
        ).last_hidden_state


def _check_shape(height: int, width: int) -> None:
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise GuideError(
            "FastVLM cannot take an image of this shape",
            got=f"{width}×{height} pixels",
            expected=f"sides that differ by a factor of {_MAX_RATIO} at most",
            remedy="use a view such as whole@224",
        )
