"""The guided Restormer as a network of equal parts: the paper's Figure 2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmfe_restore.model.checks import check_config
from mmfe_restore.model.local_attention import cell_at
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.mofe import MoFE, bands_at, num_bands
from mmfe_restore.model.pages import give_back_free
from mmfe_restore.model.parts import unit
from mmfe_restore.model.restormer import (
    Downsample,
    TransformerBlock,
    Upsample,
    conv1x1,
    convolve,
    to_nchw,
    to_nhwc,
)
from mmfe_restore.model.runners import (
    Compiled,
    CountedWork,
    Map,
    Meter,
    Runner,
    Watch,
    WholeMaps,
    compile_parts,
)
from mmfe_restore.model.streaming import StreamedLevel1, bands_within, channels_passed
from mmfe_restore.model.strips import Strips
from mmfe_restore.recipes.schema import ModelConfig

MGFB_SITES = {
    "encoder1": 0, "encoder2": 1, "encoder3": 2, "latent_in": 3,
    "latent_out": 3, "decoder3": 2, "decoder2": 1, "decoder1": 0,
}  # fmt: skip
"""Where an MGFB sits, in the order of the forward pass, and its level counted from 0."""

MOFE_SITES = {
    "encoder2": 1, "encoder3": 2, "latent_in": 3, "latent_out": 3, "decoder3": 2, "decoder2": 1,
}  # fmt: skip
"""Where a MoFE sits, in the order of the forward pass, and its level counted from 0."""

CPU_STRIP, GPU_STRIP = 2 << 20, 1 << 30
"""Bytes of a strip's widest buffer: about a core's cache; a small part of a card's memory."""

STREAM_FROM = 512 << 20
"""Bytes of the decoder's map at level 1 from which on level 1 is streamed. It takes a little more
time: some rows are made twice."""

WHOLE_MAPS = 4 << 30
"""Bytes within which a device other than a CPU runs whole maps, which is faster there."""


Guidance = tuple[Map | None, Map | None, Map | None]
"""E_Image (B, T, D), E_Joint (B, T, D) and E_Answer (B, D); None where nothing reads one."""


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)


class Network(nn.Module):
    """Figure 2: encoder, latent level, decoder and refinement, with MGFBs and MoFEs between them.

    Takes images that need no padding and embeddings that were checked; `Restorer` is what users
    call. Modules outside ``mgfb`` and ``mofe`` bear Restormer's names.

    Args:
        config: the network.

    Attributes:
        config: the same.
        activation_checkpointing: whether training recomputes each block in the backward pass
            instead of storing it.
        strip_bytes: size of a strip's widest buffer without gradients; None picks by the device.
        whole_bytes: without gradients, whole maps are used where they need no more than this, and
            strips where they need more; None picks by the device (a CPU: always strips).
        stream_bytes: strips stream level 1 where the decoder's map there is larger than this.

    Raises:
        ModelError: an odd width, or heads that do not divide their level's channels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.activation_checkpointing = False
        self.strip_bytes: int | None = None
        self.whole_bytes: int | None = None
        self.stream_bytes = STREAM_FROM
        self._compiled: Compiled = {}
        widths = [config.width * 2**level for level in range(4)]

        def stage(channels: int, level: int, count: int) -> nn.Sequential:
            heads = config.num_heads[level]
            blocks = [TransformerBlock(channels, heads, config.expansion) for _ in range(count)]
            return nn.Sequential(*blocks)

        self.patch_embed = _PatchEmbed(widths[0])
        self.encoder_level1 = stage(widths[0], 0, config.num_blocks[0])
        self.down1_2 = Downsample(widths[0])
        self.encoder_level2 = stage(widths[1], 1, config.num_blocks[1])
        self.down2_3 = Downsample(widths[1])
        self.encoder_level3 = stage(widths[2], 2, config.num_blocks[2])
        self.down3_4 = Downsample(widths[2])
        self.latent = stage(widths[3], 3, config.num_blocks[3])
        self.up4_3 = Upsample(widths[3])
        self.reduce_chan_level3 = conv1x1(widths[3], widths[2])
        self.decoder_level3 = stage(widths[2], 2, config.num_blocks[2])
        self.up3_2 = Upsample(widths[2])
        self.reduce_chan_level2 = conv1x1(widths[2], widths[1])
        self.decoder_level2 = stage(widths[1], 1, config.num_blocks[1])
        self.up2_1 = Upsample(widths[1])
        # Level 1 of the decoder keeps the concatenated 2C channels (Restormer).
        self.decoder_level1 = stage(widths[1], 0, config.num_blocks[0])
        self.refinement = stage(widths[1], 0, config.num_refinement_blocks)
        self.output = nn.Conv2d(widths[1], 3, 3, padding=1, bias=False)
        if config.identity_start:
            nn.init.zeros_(self.output.weight)

        def channels_at(site: str, level: int) -> int:
            return widths[1] if site == "decoder1" else widths[level]

        self.mgfb = nn.ModuleDict()
        for site, level in MGFB_SITES.items():
            if self._guidance_at(site) != "none":
                self.mgfb[site] = MGFB(
                    channels_at(site, level),
                    config.num_heads[level],
                    config.expansion,
                    config.guidance_dim,
                )
        self.mofe = nn.ModuleDict()
        if config.experts != "none":
            for site, level in MOFE_SITES.items():
                self.mofe[site] = MoFE(
                    widths[level],
                    config.num_heads[level],
                    config.guidance_dim,
                    config.num_experts,
                    num_bands(config),
                )
        self._set_cells()

    def _guidance_at(self, site: str) -> str:
        encoder = site.startswith("encoder") or site == "latent_in"
        return self.config.encoder_guidance if encoder else self.config.decoder_guidance

    def _set_cells(self) -> None:
        """Tell every MDTA the cells of the configuration's windows; no weight depends on them."""
        window = self.config.attention_window
        stages = (
            (self.encoder_level1, self.decoder_level1, self.refinement),
            (self.encoder_level2, self.decoder_level2),
            (self.encoder_level3, self.decoder_level3),
            (self.latent,),
        )
        for level, alike in enumerate(stages):
            for stage in alike:
                for block in _blocks(stage):
                    block.attn.cell = cell_at(window, level)
        for site in self.mofe:
            self._mofe(site).attn.cell = cell_at(window, MOFE_SITES[site])

    @property
    def size_multiple(self) -> int:
        """The multiple that `forward` pads both sides of an image to."""
        # Three halvings, and a fourth in the wavelet transform at the latent level.
        return 8 if self.config.experts == "none" else 16

    def router_weights(self, answer: Tensor) -> dict[str, Tensor]:
        """S of every MoFE (Eq. 4), for the router's loss (Eq. 7).

        Args:
            answer: (B, D) E_Answer.

        Returns:
            Site name to (B, N); empty for a network without experts.
        """
        return {site: self._mofe(site).router(answer) for site in self.mofe}

    def bands(self, padded: Tensor) -> tuple[Tensor, ...]:
        """What the experts of levels 2, 3 and 4 see of I_deg (Eq. 3); empty without experts.

        They have no parameters and are needed at three sizes only, so they are computed once
        per image and outside the compiled network.

        Args:
            padded: (B, 3, H, W), H and W multiples of `size_multiple`.
        """
        if self.config.experts == "none":
            return ()
        height, width = padded.shape[-2:]
        sizes = [(height >> level, width >> level) for level in (1, 2, 3)]
        return tuple(bands_at(padded, size, self.config).to(padded.dtype) for size in sizes)

    def restore_padded(
        self,
        image: Tensor,
        bands: tuple[Tensor, ...],
        e_image: Tensor | None,
        e_joint: Tensor | None,
        e_answer: Tensor | None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Figure 2, for an image that needs no padding.

        Args:
            image: (B, 3, H, W), H and W multiples of `size_multiple`: 0 to 1, or uint8, which is
                turned into the weights' type only as far as it must be.
            bands: as `bands` gives them; for an image that is streamed they are used up.
            e_image: (B, T, D), where a site reads it.
            e_joint: (B, T, D), where a site reads it.
            e_answer: (B, D), where MoFE is on.
            watch: is told the share that is done, where strips are used.

        Returns:
            (B, 3, H, W).
        """
        guidance = (e_image, e_joint, e_answer)
        run = self._runner(image)
        if watch is not None and isinstance(run, Strips):
            run.meter = Meter(self._work(run, image, bands, guidance), watch)
        if isinstance(run, Strips) and self._streams(image):
            # Here and not in a method of its own, whose caller would hold the bands to the end.
            bands = tuple(map(run.put_away, bands))
            give_back_free()
            streamed = StreamedLevel1(run)
            mgfb, tokens = self._fusion("encoder1", guidance)
            (block,) = _blocks(self.encoder_level1)
            level1 = streamed.encode(image, self.patch_embed.proj, mgfb, tokens, block)
            give_back_free()
            x = self._run_below(run, level1, bands, guidance)
            del bands  # as large as the image
            x = run.put_away(x)
            give_back_free()
            mgfb, tokens = self._fusion("decoder1", guidance)
            (block,) = _blocks(self.decoder_level1)
            return streamed.decode(x, level1, self.up2_1, block, mgfb, tokens, self.output, image)
        image = unit(image, self.output.weight.dtype if image.dtype == torch.uint8 else image.dtype)
        x = convolve(to_nhwc(image), self.patch_embed.proj).contiguous()
        x = self.run_levels(run, x, bands, guidance)
        return to_nchw(convolve(x, self.output)) + image

    def run_levels(
        self, run: Runner[Map], x: Map, bands: tuple[Map, ...], guidance: Guidance[Map]
    ) -> Map:
        """All between the first convolution and the last.

        Args:
            run: does the parts: with tensors, or for an exported graph.
            x: (B, H, W, C), or whatever layout ``run`` has.
            bands: as `bands` gives them.
            guidance: E_Image, E_Joint and E_Answer, None where nothing reads one.

        Returns:
            (B, H, W, 2C).
        """
        x = self._fuse(run, "encoder1", x, guidance)
        level1 = _run_blocks(run, self.encoder_level1, x)
        x = self._run_below(run, level1, bands, guidance)
        x = run.up(self.up2_1, x, level1, None)
        del level1  # with the decoder's it is the largest map of an image in strips
        x = self._fuse(run, "decoder1", _run_blocks(run, self.decoder_level1, x), guidance)
        return _run_blocks(run, self.refinement, x)

    def _run_below(
        self, run: Runner[Map], level1: Map, bands: tuple[Map, ...], guidance: Guidance[Map]
    ) -> Map:
        """From level 1 of the encoder to level 2 of the decoder, about to go up."""

        def fuse(site: str, x: Map) -> Map:
            return self._fuse(run, site, x, guidance)

        def mix(site: str, x: Map) -> Map:
            answer = guidance[2]
            if site not in self.mofe or answer is None:
                return x
            return run.mix(self._mofe(site), x, bands[MOFE_SITES[site] - 1], answer)

        x, _ = run.down(self.down1_2, level1)
        level2 = _run_blocks(run, self.encoder_level2, fuse("encoder2", mix("encoder2", x)))
        x, level2 = run.down(self.down2_3, level2)
        level3 = _run_blocks(run, self.encoder_level3, fuse("encoder3", mix("encoder3", x)))
        x, level3 = run.down(self.down3_4, level3)
        x = _run_blocks(run, self.latent, fuse("latent_in", mix("latent_in", x)))
        x = mix("latent_out", fuse("latent_out", x))

        x = run.up(self.up4_3, x, level3, self.reduce_chan_level3)
        del level3  # used up, or the decoder's map took its place
        x = fuse("decoder3", _run_blocks(run, self.decoder_level3, x))
        x = run.up(self.up3_2, mix("decoder3", x), level2, self.reduce_chan_level2)
        del level2  # likewise
        x = fuse("decoder2", _run_blocks(run, self.decoder_level2, x))
        return mix("decoder2", x)

    def _fuse(self, run: Runner[Map], site: str, x: Map, guidance: Guidance[Map]) -> Map:
        mgfb, tokens = self._fusion(site, guidance)
        return x if mgfb is None or tokens is None else run.fuse(mgfb, x, tokens)

    def _fusion(self, site: str, guidance: Guidance[Map]) -> tuple[MGFB | None, Map | None]:
        """The MGFB of a site and what it reads; two times None where there is none."""
        kinds = {"image": guidance[0], "joint": guidance[1]}
        tokens = kinds.get(self._guidance_at(site))
        return (None, None) if tokens is None else (self._mgfb(site), tokens)

    def _streams(self, image: Tensor) -> bool:
        """Whether level 1 runs in rows that are never all there; see `streaming`."""
        batch, _, height, width = image.shape
        widest = height * width * 2 * self.config.width * self._itemsize(image)
        one_block = self.config.num_blocks[0] == 1 and self.config.num_refinement_blocks == 0
        return batch == 1 and one_block and widest > self.stream_bytes

    def _work(
        self, run: Strips, image: Tensor, bands: tuple[Tensor, ...], guidance: Guidance[Tensor]
    ) -> int:
        """What ``run`` will count while it restores ``image``."""
        batch, _, height, width = image.shape
        counted = CountedWork()
        maps = torch.empty((batch, height, width, self.config.width), device="meta")
        if not self._streams(image):
            self.run_levels(counted, maps, bands, guidance)
            return counted.meter.done
        self._run_below(counted, maps, bands, guidance)
        for site, stage in (("encoder1", self.encoder_level1), ("decoder1", self.decoder_level1)):
            (block,) = _blocks(stage)
            mgfb, _ = self._fusion(site, guidance)
            passed = channels_passed(block, mgfb, encoder=site == "encoder1")
            columns = bands_within(run.budget, width, block)
            seen = sum(band.right - band.left for band in columns)
            counted.meter.add(height, seen, passed)
        return counted.meter.done

    def compile_core(self, activation_memory: float = 1.0, **options: Any) -> None:
        """Compile the blocks, for training; see `compile_parts` for the arguments.

        Without gradients they run as before. Copies and pickles are not compiled.
        """
        self.run_parts_by(compile_parts(activation_memory, **options))

    def run_parts_by(self, parts: Compiled) -> None:
        """Run parts of these classes by other functions, with gradients; earlier ones stay.

        Without gradients they run as before. Copies and pickles forget it.

        Args:
            parts: by a part's class, a function of the part and its inputs.
        """
        self._compiled = {**self._compiled, **parts}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the compiled functions behind: they belong to this object, not to its copies."""
        return {**self.__dict__, "_compiled": {}}

    def _runner(self, image: Tensor) -> Runner[Tensor]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or image.is_meta:
            tracing = torch.compiler.is_compiling() or image.is_meta
            compiled = {} if tracing else self._compiled
            return WholeMaps(self.activation_checkpointing and self.training, compiled)
        on_cpu = image.device.type == "cpu"
        whole = self.whole_bytes if self.whole_bytes is not None else 0 if on_cpu else WHOLE_MAPS
        if self._whole_map_bytes(image) <= whole:
            return WholeMaps()
        budget = self.strip_bytes or (CPU_STRIP if on_cpu else GPU_STRIP)
        return Strips(budget, puts_away=on_cpu and self._streams(image))

    def _whole_map_bytes(self, image: Tensor) -> int:
        """What whole maps of ``image`` need at once, about: level 1 of the decoder is the widest.

        The feed-forward network there holds the map, its norm, both hidden maps before and after
        the depthwise convolution and their gated product, beside the skip and the level below.
        """
        batch, _, height, width = image.shape
        channels = 2 * self.config.width
        hidden = int(channels * self.config.expansion)
        per_pixel = 2 * channels + 5 * hidden + channels
        precise = self._itemsize(image)
        if torch.is_autocast_enabled(image.device.type):
            precise = torch.get_autocast_dtype(image.device.type).itemsize
        return batch * height * width * per_pixel * precise

    def _itemsize(self, image: Tensor) -> int:
        """Bytes of one number of the maps of ``image``."""
        kind = self.output.weight.dtype if image.dtype == torch.uint8 else image.dtype
        return kind.itemsize

    def _mgfb(self, site: str) -> MGFB:
        module = self.mgfb[site]
        assert isinstance(module, MGFB)
        return module

    def _mofe(self, site: str) -> MoFE:
        module = self.mofe[site]
        assert isinstance(module, MoFE)
        return module


def _blocks(stage: nn.Sequential) -> list[TransformerBlock]:
    blocks = [block for block in stage if isinstance(block, TransformerBlock)]
    assert len(blocks) == len(stage)
    return blocks


def _run_blocks(run: Runner[Map], stage: nn.Sequential, x: Map) -> Map:
    for block in _blocks(stage):
        x = run.block(block, x)
    return x
