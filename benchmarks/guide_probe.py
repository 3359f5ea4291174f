"""How much of the severities a linear map finds in each embedding of a guide.

    python -m benchmarks.guide_probe TRAIN.zarr TEST.zarr --root SET [--view crop@224] [--json]

A set made by `mmfe data synth` records how strong every degradation is. For `answer` and for the
mean and single tokens of `image` and `joint`, a ridge regression is fitted on the training
split's cache and judged on the test split's: the share of the severities' variance that it
explains (R², 1 is all of it), per degradation. What the network can read from a guide is at
least this.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmfe_cache import Embeddings, open_cache
from mmfe_cache.datasets import load_dataset
from mmfe_cache.degradations import KINDS
from mmfe_cache.store import CacheReader

RIDGE = 20.0
"""The penalty, on inputs of unit variance."""

Matrix = NDArray[np.float64]


def token(name: str, number: int) -> Callable[[Embeddings], Matrix]:
    """Token ``number`` of ``image`` or ``joint`` as (N, D); 0 is the mean."""
    return lambda found: getattr(found, name)[:, number].double().numpy()


INPUTS: dict[str, Callable[[Embeddings], Matrix]] = {
    "answer": lambda found: found.answer.double().numpy(),  # pyright: ignore[reportOptionalMemberAccess]
    **{f"{name}, mean": token(name, 0) for name in ("image", "joint")},
    # The sixth of 4×4: not at the border.
    **{f"{name}, one token": token(name, 6) for name in ("image", "joint")},
}


def read(cache: CacheReader, root: Path, view: str) -> tuple[Embeddings, Matrix]:
    """A split's embeddings, all tokens, and its (N, 4) severities."""
    recorded = {
        sample.id: [(sample.severities or {}).get(kind, 0.0) for kind in KINDS]
        for sample in load_dataset(cache.dataset, cache.split, root)
    }
    found = cache.gather(np.arange(len(cache)), view=view, tokens="all")
    return found, np.array([recorded[name] for name in cache.ids])


def explained(x: Matrix, y: Matrix, x_test: Matrix, y_test: Matrix) -> Matrix:
    """(4,) R² on the test split of a ridge regression of (N, D) ``x`` on (N, 4) ``y``."""
    middle, spread = x.mean(0), x.std(0) + 1e-6
    x, x_test = ((v - middle) / spread for v in (x, x_test))
    x, x_test = (np.c_[v, np.ones(len(v))] for v in (x, x_test))
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    left = ((x_test @ weights - y_test) ** 2).sum(0)
    return 1 - left / ((y_test - y_test.mean(0)) ** 2).sum(0)


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("train", help="the training split's cache")
    parser.add_argument("test", help="the test split's cache")
    parser.add_argument("--root", type=Path, required=True, help="where the synthetic set lies")
    parser.add_argument("--view", default="crop@224")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    embeddings, severities = read(open_cache(arguments.train), arguments.root, arguments.view)
    tested, truth = read(open_cache(arguments.test), arguments.root, arguments.view)
    rows = {
        name: explained(take(embeddings), severities, take(tested), truth)
        for name, take in INPUTS.items()
    }
    if arguments.json:
        print(json.dumps({name: dict(zip(KINDS, row, strict=True)) for name, row in rows.items()}))
        return
    print(f"{'':18}" + "".join(f"{kind:>8}" for kind in (*KINDS, "mean")))
    for name, row in rows.items():
        print(f"{name:18}" + "".join(f"{value:8.3f}" for value in (*row, row.mean())))


if __name__ == "__main__":
    main()
