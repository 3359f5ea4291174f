"""What a recipe says: every row of every table in the paper is one value of `Recipe`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, GetCoreSchemaHandler

from mmfe_cache.embeddings import ARRAY_NAMES, DEFAULT_PROMPT, ArrayName, JointTokens, Tokens
from mmfe_cache.machine import short_name

Guidance = Literal["image", "joint", "none"]
ExpertDomain = Literal["frequency", "spatial", "none"]
Normalise = Literal["none", "rms"]


def _short(value: Any) -> Any:
    """Lightning's word for a precision; YAML reads `precision: 32` as a number."""
    return short_name(cast("Any", str(value))) if isinstance(value, int | str) else value


Precision = Annotated[Literal["auto", "32", "tf32", "64", "bf16", "16"], BeforeValidator(_short)]


@dataclass(frozen=True)
class Range:
    """What a field's type does not say of its values, for `typing.Annotated`.

    Attributes:
        words: the range, for messages and for docs/recipes.md.
        holds: whether a value of the field's type lies in it.
    """

    words: str
    holds: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Let pydantic check it after the type."""
        return AfterValidator(self._check).__get_pydantic_core_schema__(source, handler)

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise OutOfRangeError(self.words)
        return value


class OutOfRangeError(ValueError):
    """A `Range` does not hold; its words are the range."""


Count = Annotated[int, Range("0 or more", lambda n: n >= 0)]
Seed = Annotated[int, Range("0 to 2^64 - 1", lambda n: 0 <= n < 2**64)]
"""What `torch.manual_seed` takes."""
Positive = Annotated[int, Range("1 or more", lambda n: n >= 1)]
Weight = Annotated[float, Range("0 or more, finite", lambda x: 0 <= x < inf)]
PositiveFloat = Annotated[float, Range("above 0, finite", lambda x: 0 < x < inf)]
Fraction = Annotated[float, Range("[0, 1)", lambda x: 0 <= x < 1)]

WINDOW_UNIT = 48
"""`mmfe_restore.model.local_attention` divides a window into three cells, whose sides are halved
three times and are even then."""

Window = Annotated[
    int,
    Range(f"a multiple of {WINDOW_UNIT}", lambda n: n > 0 and n % WINDOW_UNIT == 0),
]


class _Part:
    """A part of a recipe: pydantic refuses keys that it does not have."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class GuideConfig(_Part):
    """Which guide's cache the recipe reads.

    Attributes:
        name: a registry name, or a checkpoint directory.
        tokens: ``grid`` (16 pooled tokens), ``mean`` (the paper's literal single vector) or ``all``
            17 of them.
        control: ``none``; ``shuffled`` (one fixed permutation of all embeddings over the
            samples) and ``constant`` (one fixed pseudo-random embedding of unit variance for
            every sample, the same at training and test) tell what guidance brings apart from
            what parameters bring.
        prompt: what an MLLM is asked. None is the paper's question, or what the one store that
            ``--cache`` names was asked.
        prompts: a list to train on: every draw reads the embeddings of one of these prompts, drawn
            anew. Evaluation and `mmfe restore` ask ``guide.prompt``, which must be one of them and
            is the first where it is left out. None trains on ``guide.prompt`` alone.
        joint: which of an MLLM's tokens E_Joint pools: ``all`` of the sequence (the paper's words),
            or those ``from-image`` on, leaving out the ones before the picture, which cannot
            depend on it.
        normalise: ``rms`` divides every embedding vector by the root mean square of its numbers
            before the network reads it, so that no guide's scale saturates the router; ``none``
            reads them as they are.
    """

    name: str = "qwen2.5-vl-3b"
    tokens: Tokens = "grid"
    control: Literal["none", "shuffled", "constant"] = "none"
    prompt: str | None = None
    prompts: Annotated[tuple[str, ...], Range("at least one prompt, or null", bool)] | None = None
    joint: JointTokens = "all"
    normalise: Normalise = "none"

    @property
    def asked(self) -> str:
        """What evaluation and restoring ask: ``prompt``, or the paper's question."""
        return DEFAULT_PROMPT if self.prompt is None else self.prompt


READING = ("tokens", "control", "joint", "normalise")
"""The keys of `GuideConfig` that say how embeddings are read; which guide's, fingerprints say."""


@dataclass(frozen=True)
class ModelConfig(_Part):
    """The network (paper, Appendix A.1).

    Attributes:
        width: C, the channels at level 1; level k has C * 2 ** (k - 1).
        num_blocks: Transformer blocks of levels 1 to 4.
        num_refinement_blocks: blocks after the decoder.
        num_heads: attention heads of levels 1 to 4.
        expansion: the feed-forward network's expansion factor, gamma.
        encoder_guidance: which embedding the encoder's and the latent's first MGFB reads.
        decoder_guidance: which embedding the latent's second and the decoder's MGFB reads.
        experts: the domain in which MoFE works; ``none`` leaves MoFE out.
        num_experts: N, the experts of every MoFE.
        low_band: whether MoFE also sees the LL band (Table S1).
        guidance_dim: D, the width of the embeddings; a recipe that leaves it out gets its guide's.
        guidance_dropout: probability of replacing a sample's embeddings by the learned null
            guidance in training; above 0 the model also runs without a guide.
        identity_start: start the output convolution at zero, so that the untrained network is
            the identity.
        attention_window: MDTA sums over windows of this many pixels of the image, so that a
            photograph is attended as the crops of the training were; null sums over the whole
            image, whatever its size (the paper).
    """

    width: Annotated[int, Range("an even number, 2 or more", lambda n: n >= 2 and n % 2 == 0)] = 48
    num_blocks: tuple[Count, Count, Count, Count] = (4, 6, 6, 8)
    num_refinement_blocks: Count = 4
    num_heads: tuple[Positive, Positive, Positive, Positive] = (1, 2, 4, 8)
    expansion: PositiveFloat = 2.66
    encoder_guidance: Guidance = "image"
    decoder_guidance: Guidance = "joint"
    experts: ExpertDomain = "frequency"
    num_experts: Positive = 8
    low_band: bool = False
    guidance_dim: Positive = 2048
    guidance_dropout: Fraction = 0.0
    identity_start: bool = False
    attention_window: Window | None = None

    @property
    def reads(self) -> tuple[ArrayName, ...]:
        """The kinds of embedding that the network uses; none for an unguided one."""
        used = {self.encoder_guidance, self.decoder_guidance}
        if self.experts != "none":
            used.add("answer")  # the routers read E_Answer
        return tuple(name for name in ARRAY_NAMES if name in used)


@dataclass(frozen=True)
class DataConfig(_Part):
    """What the network is trained on.

    Attributes:
        dataset: the dataset's name.
        repeats: how often a sample of a label is drawn in one epoch; labels that are not
            listed are drawn once. ``"*"`` stands for every label.
        augment: draw one of the eight flips and rotations for every crop.
        allow_skipped: train without the samples that the cache lacks because their images could
            not be read; refused otherwise.
        validation_scenes: training scenes held out for validation; 0 switches it off.
        validation_every: optimiser steps between two validations.
    """

    dataset: str = "cdd11"
    repeats: dict[str, Count] = field(default_factory=dict[str, int])
    augment: bool = True
    allow_skipped: bool = False
    validation_scenes: Count = 0
    validation_every: Positive = 5000


@dataclass(frozen=True)
class LossConfig(_Part):
    """Weights of the loss (paper, Eq. 8); the L1 term in RGB weighs 1.

    Attributes:
        fourier: weight of the L1 distance of the Fourier transforms.
        mgl: lambda, the weight of the MLLM-guided router loss (Eq. 7).
    """

    fourier: Weight = 0.1
    mgl: Weight = 0.1


@dataclass(frozen=True)
class Stage(_Part):
    """One stage of the progressive schedule (paper, Appendix A.2).

    Attributes:
        epochs: how many epochs it lasts.
        resolution: side of the square training crops, in pixels.
        batch_size: the global batch, over all processes and accumulated micro-batches.
    """

    epochs: Positive
    resolution: Annotated[int, Range("16 or more", lambda n: n >= 16)]
    batch_size: Positive


@dataclass(frozen=True)
class TrainConfig(_Part):
    """How the network is trained (paper, Appendix A.2).

    Attributes:
        stages: the progressive schedule, in order.
        view: the family of views that training reads, ``whole`` or ``crop``: a stage reads
            ``<view>@<resolution>``; or one view, such as ``crop@224``, that every stage reads.
        aligned_crops: K; above 0 (``view: crop`` only) training draws one of the K fixed crops
            ``crop@<resolution>#k`` and cuts the network's input there too, so that guide and
            network see the same pixels.
        learning_rate: at the start; it falls to 0 along one cosine over the whole run.
        betas: of Adam.
        seed: of everything random in the run.
        precision: ``auto`` is bf16 on CUDA and float32 on a CPU; ``tf32`` is float32 whose products
            a GPU rounds to 10 bits; ``16`` trains on CUDA alone.
        accumulate: micro-batches that one global batch is split into, per process.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        activation_memory: the share of its activations that a compiled block keeps for the
            backward pass on CUDA; what it does not keep it computes again, the cheapest first.
        compile: compile the network's blocks: ``auto`` does on CUDA.
        kernels: what runs the Transformer blocks: ``torch``, or the ``triton`` kernels of this
            package, on CUDA alone: less memory, but slower on an H100. Checkpoints are the same.
        ema_decay: of an exponential moving average of the weights; None switches it off.
        gradient_clip: largest gradient norm; None leaves gradients alone.
        num_workers: loader processes; -1 picks by the machine.
        checkpoint_every: seconds between two checkpoints; 0 writes one after every step.
        log_every: optimiser steps between two logged rows.
        max_steps: end the schedule after this many optimiser steps; the cosine then falls to 0
            there. None for all.
    """

    stages: Annotated[tuple[Stage, ...], Range("at least one stage", bool)] = (
        Stage(130, 128, 64),
        Stage(60, 160, 32),
        Stage(40, 192, 16),
        Stage(20, 224, 16),
    )
    view: str = "whole"
    aligned_crops: Count = 0
    learning_rate: PositiveFloat = 2e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    seed: Seed = 0
    precision: Precision = "auto"
    accumulate: Positive = 1
    activation_checkpointing: bool = False
    activation_memory: Annotated[float, Range("(0, 1]", lambda x: 0 < x <= 1)] = 0.5
    compile: Literal["auto", "on", "off"] = "auto"
    kernels: Literal["torch", "triton"] = "torch"
    ema_decay: Annotated[float, Range("(0, 1), or null", lambda x: 0 < x < 1)] | None = None
    gradient_clip: Annotated[float, Range("above 0, or null", lambda x: x > 0)] | None = None
    num_workers: Annotated[int, Range("-1 or more", lambda n: n >= -1)] = -1
    checkpoint_every: Count = 600
    log_every: Positive = 50
    max_steps: Positive | None = None


@dataclass(frozen=True)
class EvalConfig(_Part):
    """How the network is judged.

    Attributes:
        view: the view that evaluation reads.
        protocol: crop, range, rounding and windows by the peer's name.
        crop_multiple: centre-crop test images to a multiple of this; 1 keeps them whole. Under the
            protocol ``mmfe`` alone, and ``aio3`` and ``aio5`` are cropped to 16 at least.
    """

    view: str = "whole@224"
    protocol: Literal["mmfe", "promptir", "moce-ir", "onerestore", "restormer"] = "mmfe"
    crop_multiple: Positive = 1


@dataclass(frozen=True)
class Recipe(_Part):
    """A named, validated configuration of one run.

    Attributes:
        name: as in ``--recipe NAME``, such as ``table4a/mofe``.
        description: one sentence for people.
        published_parameters: the count that the paper prints, in millions; None where it
            prints none.
    """

    name: str
    description: str = ""
    guide: GuideConfig = field(default_factory=GuideConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    published_parameters: float | None = None

    @property
    def each_prompt(self) -> tuple[Recipe, ...]:
        """This recipe with each of the prompts that training draws from, alone."""
        if self.guide.prompts is None:
            return (self,)
        return tuple(
            replace(self, guide=replace(self.guide, prompt=prompt, prompts=None))
            for prompt in self.guide.prompts
        )

    @property
    def training_views(self) -> tuple[str, ...]:
        """The views that training reads, in order of the stages, each once."""
        views = (view for stage in self.train.stages for view in self.stage_views(stage))
        return tuple(dict.fromkeys(views))

    def stage_views(self, stage: Stage) -> tuple[str, ...]:
        """The views that ``stage`` reads: one, or K fixed crops."""
        name = self.view_at(stage.resolution)
        if not self.train.aligned_crops:
            return (name,)
        return tuple(f"{name}#{k}" for k in range(self.train.aligned_crops))

    def view_at(self, resolution: int) -> str:
        """The view that a stage of ``resolution`` reads, without the number of a fixed crop."""
        view = self.train.view
        return f"{view}@{resolution}" if view in ("whole", "crop") else view
