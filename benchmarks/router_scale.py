"""What the scale of E_Answer does to a router that learns by L_MGL alone, with Adam.

A router (Eq. 4) of the paper's size is trained on synthetic answers: a common part, as the hidden
states of an MLLM have, which decides their mean cosine, a part for each of eleven compositions, and
one of each sample; scaled to one root mean square.

    python -m benchmarks.router_scale [--steps 1000] [--cosines 0 0.5 0.9] [--json]

`saturated` is the share of expert weights below 0.01 or above 0.99; `spread` the mean standard
deviation of an expert's weight over the samples, 0 where routing is constant; `loss` is L_MGL.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from mmfe_cache.embeddings import rms_normalised
from mmfe_cache.seeds import generator
from mmfe_restore.losses import relational_loss
from mmfe_restore.model.mofe import Router
from mmfe_restore.training.initial_weights import saturated_share

SCALES = (1.0, 5.0, 20.0)
COSINES = (0.0, 0.5, 0.9)
AFTER = (0, 10, 100, 1000)
"""Optimiser steps after which a router is looked at; the last is --steps."""

COMPOSITIONS = 11
OWN = 0.4
"""Share of what answers do not have in common that is a sample's alone, not its composition's."""


def answers(count: int, dim: int, cosine: float = 0.5, seed: int = 0) -> torch.Tensor:
    """(count, dim) answers of RMS 1; those of two compositions have this cosine on average."""
    draw = generator("router-scale", seed)
    common = draw.standard_normal(dim)
    kinds = draw.standard_normal((COMPOSITIONS, dim))
    own = draw.standard_normal((count, dim))
    kind = draw.integers(COMPOSITIONS, size=count)
    apart = (1 - OWN) ** 0.5 * kinds[kind] + OWN**0.5 * own
    parts = cosine**0.5 * common + (1 - cosine) ** 0.5 * apart
    return rms_normalised(torch.from_numpy(parts).float())


def simulate(
    scale: float,
    *,
    normalise: bool,
    steps: int,
    cosine: float = 0.5,
    dim: int = 2048,
    experts: int = 8,
    batch: int = 64,
    after: tuple[int, ...] = AFTER,
) -> list[dict[str, Any]]:
    """Train one router and look at it on its way.

    Args:
        scale: RMS of the answers.
        normalise: read them as `guide.normalise=rms` does.
        steps: of Adam at the paper's 2e-4.
        cosine: of answers of two compositions.
        dim: D.
        experts: N.
        batch: answers of a step.
        after: the steps after which it is looked at; those beyond ``steps`` are left out.

    Returns:
        a row for each of ``after``.
    """
    torch.manual_seed(0)
    everything = scale * answers(16 * batch, dim, cosine)
    if normalise:
        everything = rms_normalised(everything)
    router = Router(dim, experts)
    adam = torch.optim.Adam(router.parameters(), lr=2e-4, betas=(0.9, 0.999))
    order = generator("router-scale-order", 0)
    looks = sorted({step for step in after if step <= steps} | {steps})
    rows: list[dict[str, Any]] = []
    for step in range(steps + 1):
        if step in looks:
            about = {"cosine": cosine, "rms": scale, "normalise": normalise, "step": step}
            rows.append({**about, **look(router, everything)})
        chosen = everything[order.integers(len(everything), size=batch)]
        loss = relational_loss(chosen, router(chosen))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return rows


def look(router: Router, everything: torch.Tensor) -> dict[str, float]:
    """What the router makes of all answers."""
    with torch.no_grad():
        weights = router(everything)
        return {
            "saturated": saturated_share({"one": weights}),
            "spread": float(weights.std(dim=0).mean()),
            "loss": float(relational_loss(everything, weights)),
        }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=AFTER[-1])
    parser.add_argument("--cosines", type=float, nargs="*", default=list(COSINES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [
        row
        for cosine in arguments.cosines
        for normalise in (False, True)
        for scale in SCALES
        for row in simulate(scale, normalise=normalise, steps=arguments.steps, cosine=cosine)
    ]
    if arguments.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    print("| cosine | RMS | normalise | step | saturated | spread | L_MGL |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        read = "rms" if row["normalise"] else "none"
        print(
            f"| {row['cosine']:g} | {row['rms']:g} | {read} | {row['step']} | "
            f"{row['saturated']:.1%} | {row['spread']:.3f} | {row['loss']:.4f} |"
        )


if __name__ == "__main__":
    main()
