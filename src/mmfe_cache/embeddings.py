"""E_Image, E_Joint and E_Answer of a batch (paper, Section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

ArrayName = Literal["image", "joint", "answer"]
Tokens = Literal["grid", "mean", "all"]
JointTokens = Literal["all", "from-image"]
"""Which of an MLLM's tokens ``joint`` pools: the whole sequence, or from the picture's first on."""

ARRAY_NAMES: tuple[ArrayName, ...] = get_args(ArrayName)
"""The three kinds of embedding, in the order they are stored."""

NUM_TOKENS = 17
"""Stored tokens of ``image`` and ``joint``: token 0 the exact mean, 1 to 16 the pooled grid."""

TOKEN_SLICES: dict[Tokens, slice] = {
    "mean": slice(0, 1),
    "grid": slice(1, NUM_TOKENS),
    "all": slice(0, NUM_TOKENS),
}
"""Which stored tokens each reading takes; ``mean`` is the paper's literal single vector."""


DEFAULT_PROMPT = "What kinds of degradation in this image?"
"""The paper's question (Section 3), put to every guide that is asked one."""


def embedding_shape(name: ArrayName, dim: int) -> tuple[int, ...]:
    """The shape of one sample's embedding: (17, D), or (D,) for ``answer``."""
    return (dim,) if name == "answer" else (NUM_TOKENS, dim)


def rms_normalised(vectors: torch.Tensor) -> torch.Tensor:
    """(…, D) vectors at root mean square 1, float32 at least; zero vectors stay zero.

    It has no parameters, and doing it twice is doing it once.
    """
    import torch

    precise = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    scale = precise.square().mean(dim=-1, keepdim=True).sqrt()
    return precise / scale.clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The guidance of B samples.

    A kind that was not asked for is None.

    Attributes:
        image: (B, T, D) pooled image tokens of the guide's final decoder, for the encoder.
        joint: (B, T, D) pooled tokens of the whole sequence, for the decoder.
        answer: (B, D) the last token's hidden state, for the router.
        view: the view that a cache gathered them from; None where nobody said. A network that
            knows its recipe refuses others than the recipe's.
    """

    image: torch.Tensor | None = None
    joint: torch.Tensor | None = None
    answer: torch.Tensor | None = None
    view: str | None = None

    @classmethod
    def of(cls, kinds: Mapping[str, torch.Tensor], view: str | None = None) -> Embeddings:
        """From tensors by their names, as `present` gives them."""
        return cls(kinds.get("image"), kinds.get("joint"), kinds.get("answer"), view)

    def __len__(self) -> int:
        """B, the number of samples; 0 when no kind is present."""
        return next((len(tensor) for tensor in self.present().values()), 0)

    def present(self) -> dict[ArrayName, torch.Tensor]:
        """The kinds that are there, by name, in storage order."""
        found: dict[ArrayName, torch.Tensor] = {}
        for name in ARRAY_NAMES:
            tensor = getattr(self, name)
            if tensor is not None:
                found[name] = tensor
        return found

    def out_of_inference(self) -> Embeddings:
        """Tensors that were made in inference mode, copied into ordinary ones.

        A network that runs outside of `torch.no_grad` keeps them for its backward pass, which
        PyTorch refuses for the others.
        """
        return self.map(lambda tensor: tensor.clone() if tensor.is_inference() else tensor)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Embeddings:
        """Apply ``function`` to every tensor that is there."""
        return replace(self, **{name: function(t) for name, t in self.present().items()})

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Embeddings:
        """Move and cast every tensor."""
        return self.map(lambda t: t.to(device=device, dtype=dtype, non_blocking=non_blocking))

    def normalised(self) -> Embeddings:
        """Every vector divided by the root mean square of its numbers; see `rms_normalised`."""
        return self.map(rms_normalised)

    def select(self, tokens: Tokens) -> Embeddings:
        """Keep the ``tokens`` reading of ``image`` and ``joint`` that hold all 17 tokens."""
        window = TOKEN_SLICES[tokens]
        return replace(
            self,
            image=None if self.image is None else self.image[:, window],
            joint=None if self.joint is None else self.joint[:, window],
        )
