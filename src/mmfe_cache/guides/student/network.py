"""The network of a student, and the basis in which it says its teacher's embeddings.

Shape suffixes: B batch, T tokens, R numbers of a basis, D width of the teacher's embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfe_cache.embeddings import ARRAY_NAMES, NUM_TOKENS, ArrayName, Embeddings
from mmfe_cache.guides.pooling import pool_grid
from mmfe_cache.guides.scene.network import DIM, STATISTICS, SceneTrunk, make_summary

MAX_PARAMETERS = 3_000_000
"""No student's network has more."""

_HEADS = 1_700_000
"""Of these, what the linear maps to the tokens may take."""

_WIDEST = 256
"""Hidden numbers at most."""


@dataclass(frozen=True, slots=True)
class Basis:
    """One kind of embedding as its mean and a few numbers.

    Attributes:
        mean: (T, D) of each token; T is 1 for ``answer``.
        axes: (R, D) principal axes of what is left, each times its standard deviation: the
            numbers that belong to them have variance 1.
        share: of the variance about the mean that they hold.
    """

    mean: Tensor
    axes: Tensor
    share: float

    @property
    def rank(self) -> int:
        """R."""
        return len(self.axes)


def make_basis(vectors_NTD: Tensor, share: float, most: int) -> Basis:
    """Principal axes of N samples' tokens about each token's own mean.

    Args:
        vectors_NTD: float32 or float64.
        share: of the variance that the axes must hold.
        most: axes at most, whatever share they hold.
    """
    vectors = vectors_NTD.double()
    mean = vectors.mean(dim=0)
    rows = (vectors - mean).flatten(0, 1)
    if len(rows) < rows.shape[1]:  # fewer samples than dimensions
        _, spread, axes = torch.linalg.svd(rows, full_matrices=False)
        variance = spread.square() / len(rows)
    else:
        variance, columns = torch.linalg.eigh(rows.T @ rows / len(rows))
        variance, axes = variance.flip(0).clamp_min(0), columns.T.flip(0)
    held = variance.cumsum(0) / variance.sum().clamp_min(1e-30)
    rank = min(int((held < share).sum()) + 1, most, len(variance))
    # No axis of what is rounding alone.
    rank = max(1, min(rank, int((variance > 1e-10 * variance[0]).sum())))
    scaled = axes[:rank] * variance[:rank, None].sqrt()
    return Basis(mean.float(), scaled.float(), float(held[rank - 1]))


class StudentNetwork(SceneTrunk):
    """Any picture to the numbers of each basis, and by them to the teacher's embeddings.

    What the whole picture holds goes through a small MLP and then through a linear map of each
    token's own, since a teacher's tokens may each say the same thing in another way. Tokens of
    ``image`` and ``joint`` also get what the picture holds in their cell.

    Args:
        bases: of each kind of embedding.
    """

    def __init__(self, bases: dict[ArrayName, Basis]) -> None:
        super().__init__()
        self.summary = make_summary()
        self.more = nn.Sequential(nn.BatchNorm1d(STATISTICS), nn.Linear(STATISTICS, 256), nn.GELU())
        ranks = {name: bases[name].rank for name in ARRAY_NAMES}
        maps = NUM_TOKENS * (ranks["image"] + ranks["joint"]) + ranks["answer"]
        width = max(32, min(_WIDEST, _HEADS // maps))
        self.hidden = nn.Sequential(
            nn.Linear(DIM + 256, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.cells = nn.Sequential(nn.Linear(2 * DIM + width, 128), nn.GELU())
        self.of_picture = nn.ParameterDict()
        self.of_cell = nn.ModuleDict()
        for name in ARRAY_NAMES:
            tokens = len(bases[name].mean)
            weight = torch.empty(tokens, width, ranks[name])
            nn.init.normal_(weight, std=width**-0.5)
            self.of_picture[name] = nn.Parameter(weight)
            if tokens > 1:
                last = nn.Linear(128, ranks[name])
                nn.init.zeros_(last.weight)
                self.of_cell[name] = last
            # Named, so that they are saved with the network.
            self.register_buffer(f"mean_{name}", bases[name].mean.clone())
            self.register_buffer(f"axes_{name}", bases[name].axes.clone())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> StudentNetwork:
        """The network with the tensors of a ``state_dict``, whose bases are among them.

        Raises:
            KeyError: a basis is missing.
            RuntimeError: the tensors are another network's.
        """
        network = cls(
            {name: Basis(state[f"mean_{name}"], state[f"axes_{name}"], 0.0) for name in ARRAY_NAMES}
        )
        network.load_state_dict(state)
        return network

    @property
    def parameter_count(self) -> int:
        """Trained numbers; the bases are none."""
        return sum(parameter.numel() for parameter in self.parameters())

    def features(self, groups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features of one batch of N pictures, in groups of one size each.

        Args:
            groups: (B, 3, H, W) RGB in [0, 1]; sides a multiple of 2 and at least 64.

        Returns:
            (N, STATISTICS) of the picture, and (N, 17, 2·DIM) mean and mean magnitude of the
            coarsest map over the picture and in 4×4 cells; group by group.
        """
        of_pictures: list[Tensor] = []
        cells: list[Tensor] = []
        for coarse, pooled in self.trunk_features(groups):
            raster = coarse.permute(0, 2, 3, 1)
            both = torch.cat([raster, raster.float().square().add(1e-4).sqrt()], dim=3)
            of_pictures.append(pooled)
            cells.append(pool_grid(both))
        return torch.cat(of_pictures), torch.cat(cells)

    def numbers(self, pooled: Tensor, cells_BTC: Tensor) -> dict[ArrayName, Tensor]:
        """What is said in each basis, (B, T, R), by the `features` of B pictures of any sizes."""
        hidden = self.hidden(torch.cat([self.summary(pooled), self.more(pooled)], dim=1))
        tokens = cells_BTC.shape[1]
        around = torch.cat([cells_BTC, hidden[:, None].expand(-1, tokens, -1)], dim=2)
        local = self.cells(around)
        found: dict[ArrayName, Tensor] = {}
        for name in ARRAY_NAMES:
            said = torch.einsum("bh,thr->btr", hidden, self.of_picture[name])
            found[name] = said + self.of_cell[name](local) if name in self.of_cell else said
        return found

    def embeddings(self, numbers: dict[ArrayName, Tensor]) -> Embeddings:
        """(B, 17, D), (B, 17, D) and (B, D) in the teacher's own space."""
        found = {
            name: said.float() @ getattr(self, f"axes_{name}") + getattr(self, f"mean_{name}")
            for name, said in numbers.items()
        }
        return Embeddings(found["image"], found["joint"], found["answer"].squeeze(1))

    def forward(self, picture_BCHW: Tensor) -> Embeddings:
        """The embeddings of B pictures of one size."""
        return self.embeddings(self.numbers(*self.features([picture_BCHW])))


def relations(answer_BD: Tensor) -> Tensor:
    """(B, B) cosine similarities, which L_MGL sees."""
    unit = F.normalize(answer_BD.float(), dim=1)
    return unit @ unit.T
