"""Restores in every way and precision and prints what was refused: as CUDA's autocast has it."""

import json
from contextlib import nullcontext
from itertools import product

import nullgpu  # noqa: F401
import torch

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer
from mmfe_restore.recipes.schema import ModelConfig

# Values are read back as 0, which is not what a check of them wants to see.
torch.Tensor.__bool__ = lambda tensor: True

CONFIG = ModelConfig(
    width=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, num_experts=2, guidance_dim=16
)
WAYS = {"whole maps": {}, "strips": {"whole_bytes": 0}}
WAYS["streamed"] = WAYS["strips"] | {"stream_bytes": 0}

found = {}
for (way, settings), precision, kind in product(
    WAYS.items(), ("float32", "bfloat16", "float16"), ("bytes", "floats")
):
    restorer = Restorer(CONFIG).cuda().eval()
    vars(restorer).update(settings, strip_bytes=1 << 12)
    tokens = torch.randn(1, 16, CONFIG.guidance_dim, device="cuda")
    image = torch.zeros(1, 3, 64, 48, dtype=torch.uint8, device="cuda")
    half = precision != "float32"
    autocast = torch.autocast("cuda", getattr(torch, precision)) if half else nullcontext()
    try:
        with torch.inference_mode(), autocast:
            embeddings = Embeddings(tokens, tokens, tokens[:, 0])
            if kind == "bytes":
                restorer.restore_bytes(image, embeddings)
            else:
                restorer(image / 255, embeddings)
        outcome = "ran"
    except RuntimeError as problem:
        outcome = f"{type(problem).__name__}: {problem}"
    found[f"{way}, {precision}, {kind}"] = outcome
print(json.dumps(found))
