"""Restorer: what users call, for images of any size and embeddings of any guide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmfe_cache.embeddings import ArrayName, Embeddings, rms_normalised
from mmfe_cache.errors import ModelError
from mmfe_restore.model import checkpoints
from mmfe_restore.model.checks import (
    check_bytes,
    check_config,
    check_embeddings,
    check_image,
    check_keep,
    check_view,
)
from mmfe_restore.model.network import Network
from mmfe_restore.model.parts import unit
from mmfe_restore.model.runners import Watch
from mmfe_restore.recipes.schema import ModelConfig

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import Recipe


class Restorer(Network):
    """Restores degraded images, guided by a multimodal LLM's embeddings (Appendix A.1).

    Pads and checks what it is given, puts the null guidance where embeddings are missing, and runs
    `Network`. With guidance off the state dict is Restormer's.

    Args:
        config: the network; ``ModelConfig()`` is the paper's.

    Raises:
        ModelError: an odd width, or heads that do not divide their level's channels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.recipe: Recipe | None = None
        """The recipe that this network was made or trained by, where it is known.

        Its ``guide.normalise`` says how embeddings are read."""
        self.guide_fingerprint: dict[str, Any] | None = None
        """How the guide saw in training (a store's ``guide.*`` keys), where a run recorded it."""
        self.null_guidance = (
            NullGuidance(config.reads, config.guidance_dim)
            if config.guidance_dropout > 0 and config.reads
            else None
        )

    # What users ask of it

    @property
    def has_null_guidance(self) -> bool:
        """Whether it runs without embeddings: only where guidance dropout trained it to."""
        return self.null_guidance is not None

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.output.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.output.weight.device

    def forward(
        self,
        image: Tensor,
        embeddings: Embeddings | None = None,
        keep: Tensor | None = None,
        *,
        watch: Watch | None = None,
    ) -> Tensor:
        """Restore a batch of images.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any H and W from 1, of the network's `dtype` (under
                autocast any floating one).
            embeddings: the guide's embeddings of the B images, any floating dtype; None takes
                the null guidance, or is right for a network that reads none.
            keep: (B,) bool; False where the null guidance takes a sample's place. None keeps all.
            watch: is told the share of the work that is done, from 0 to 1, where the image is
                restored in strips: without gradients, on a CPU or too large for whole maps.

        Returns:
            (B, 3, H, W), not clamped.

        Raises:
            ModelError: an image or embeddings that do not fit, with what was expected; no
                embeddings, or ``keep``, where no null guidance was trained. Non-finite values
                are looked for outside training only.
        """
        tracing = torch.compiler.is_compiling()
        check_image(image, self.dtype, values=not self.training and not tracing)
        return self._restore(image, self._guidance(image, embeddings, keep, tracing), watch)

    def attend_within(self, window: int | None) -> None:
        """Let MDTA sum over other windows: ``model.attention_window`` of its configuration.

        No weight depends on it. Windows somewhat larger than the crops of the training show the
        network what it was trained on; a photograph is many times their size.

        Args:
            window: in pixels of the image, a multiple of 48; None sums over whole images.

        Raises:
            ModelError: another number.
        """
        config = replace(self.config, attention_window=window)
        check_config(config)
        self.config = config
        self._set_cells()
        if self.recipe is not None:  # which is saved with the weights
            self.recipe = replace(self.recipe, model=config)

    @torch.no_grad()
    def restore_bytes(
        self, image: Tensor, embeddings: Embeddings | None = None, *, watch: Watch | None = None
    ) -> Tensor:
        """Restore images of 8 bits; a large one is never there as a whole in floating point.

        The arguments are those of `forward`, but for ``image`` in uint8.

        Returns:
            (B, 3, H, W) of the network's `dtype`, 0 to 1, not clamped: what `forward` gives for
            the image divided by 255.

        Raises:
            ModelError: no such image, or embeddings that do not fit.
        """
        check_bytes(image)
        return self._restore(image, self._guidance(image, embeddings, None, tracing=False), watch)

    def _restore(self, image: Tensor, guidance: Embeddings, watch: Watch | None) -> Tensor:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.size_multiple)
        exact = self.dtype if image.dtype == torch.uint8 else image.dtype
        restored = self.restore_padded(
            padded,
            # Not by a name or a starred argument, either of which would hold them to the end.
            self.bands(unit(padded, exact)),
            guidance.image,
            guidance.joint,
            guidance.answer,
            watch,
        )
        return restored[..., :height, :width]

    def _guidance(
        self, image: Tensor, embeddings: Embeddings | None, keep: Tensor | None, tracing: bool
    ) -> Embeddings:
        """The embeddings that the network reads, checked, with the null guidance mixed in."""
        reads = self.config.reads
        if not reads:
            return Embeddings()
        if self.null_guidance is None and (embeddings is None or keep is not None):
            raise ModelError(
                "this network needs a guide's embeddings: its recipe trained no null guidance"
                if embeddings is None
                else "`keep` needs the null guidance, which this network's recipe did not train",
                got="no embeddings" if embeddings is None else "keep",
                expected=f"embeddings with {', '.join(reads)} of width {self.config.guidance_dim}",
                remedy="pass embeddings, or train with --set model.guidance_dropout=0.1",
            )
        if keep is not None:
            check_keep(keep, len(image))
        if embeddings is not None:
            values = not self.training and not tracing
            check_embeddings(embeddings, self.config, len(image), values=values)
            if embeddings.view is not None and self.recipe is not None:
                check_view(embeddings.view, self.recipe)
            read = Embeddings.of({name: getattr(embeddings, name) for name in reads})
            embeddings = (read.normalised() if self._normalises else read).to(
                self.device, self.dtype
            )
        if self.null_guidance is not None:
            return self.null_guidance(embeddings, keep, len(image))
        assert embeddings is not None
        return embeddings

    def router_weights(self, answer: Tensor) -> dict[str, Tensor]:
        """S of every MoFE (Eq. 4) for E_Answer (B, D), normalised first as the recipe says."""
        read = rms_normalised(answer).to(answer.dtype) if self._normalises else answer
        return super().router_weights(read)

    @property
    def _normalises(self) -> bool:
        return self.recipe is not None and self.recipe.guide.normalise == "rms"

    # Where it comes from and goes to

    @classmethod
    def from_recipe(cls, recipe: str | Path | Recipe) -> Restorer:
        """A new, untrained network by a recipe or its name.

        Raises:
            UsageError: an unknown recipe.
        """
        from mmfe_restore.recipes import Recipe, load_recipe

        found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        restorer = cls(found.model)
        restorer.recipe = found
        return restorer

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Restorer:
        """Load what `save_pretrained` or `push_to_hub` wrote; see `checkpoints.load`."""
        return checkpoints.load(cls, source, **options)

    def save_pretrained(self, folder: str | Path, recipe: Recipe | None = None) -> None:
        """Write model.safetensors, config.json and README.md; see `checkpoints.save`."""
        checkpoints.save(self, folder, recipe)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload to the Hugging Face Hub; see `checkpoints.push`."""
        return checkpoints.push(self, repository, **options)

    @classmethod
    def from_restormer(cls, path: str | Path, config: ModelConfig | None = None) -> Restorer:
        """Start from Restormer's published weights; see `checkpoints.load_restormer`."""
        return checkpoints.load_restormer(cls, path, config)


class NullGuidance(nn.Module):
    """One learned D-vector per kind of embedding, for samples without guidance.

    Args:
        kinds: the kinds of embedding that the network reads.
        guidance_dim: D.
    """

    def __init__(self, kinds: tuple[ArrayName, ...], guidance_dim: int) -> None:
        super().__init__()
        for kind in kinds:
            self.register_parameter(kind, nn.Parameter(torch.zeros(guidance_dim)))

    def forward(self, embeddings: Embeddings | None, keep: Tensor | None, batch: int) -> Embeddings:
        """Replace what is not kept.

        Args:
            embeddings: the guide's; None means that no sample has any.
            keep: (B,) bool, False where the null guidance takes a sample's place; None keeps all.
            batch: B.

        Returns:
            Embeddings of B samples. In training every null vector is in the graph, whatever
            ``keep`` says, so that distributed training sees a gradient for it at every step.
        """
        vectors = dict(self.named_parameters())
        if embeddings is None:
            shapes = {name: (batch, 1, -1) if name != "answer" else (batch, -1) for name in vectors}
            return Embeddings.of({n: v.expand(shapes[n]) for n, v in vectors.items()})
        if keep is None:
            if not self.training:
                return embeddings
            device = next(iter(vectors.values())).device
            keep = torch.ones(batch, dtype=torch.bool, device=device)
        mixed: dict[str, Tensor] = {}
        for name, vector in vectors.items():
            tensor = getattr(embeddings, name)
            mask = keep.view(-1, *(1,) * (tensor.dim() - 1))
            mixed[name] = torch.where(mask, tensor, vector.to(tensor.dtype))
        return replace(embeddings, **mixed)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and the right of ``image`` to a multiple of ``multiple``.

    By reflection, repeated where the image is smaller than the padding; a side of one pixel has
    nothing to reflect and is replicated.

    Args:
        image: (B, C, H, W), any H and W from 1.
        multiple: of both sides.

    Returns:
        (B, C, H', W'); the image itself where it already fits.
    """
    height, width = image.shape[-2:]
    for axis, length in ((-2, height), (-1, width)):
        missing = -length % multiple
        if missing:
            index = torch.arange(length + missing, device=image.device) % max(1, 2 * (length - 1))
            image = image.index_select(axis, torch.minimum(index, 2 * (length - 1) - index))
    return image
