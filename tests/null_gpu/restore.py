"""Restores in every way and precision and prints what was refused: as CUDA's autocast has it.

Besides: over how many channels each way convolves, and how which size is run by default.
"""

import json
from contextlib import nullcontext
from itertools import product

import nullgpu  # noqa: F401
import torch
from torch.overrides import TorchFunctionMode

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.recipes.schema import ModelConfig

# Values are read back as 0, which is not what a check of them wants to see.
torch.Tensor.__bool__ = lambda tensor: True

CONFIG = ModelConfig(
    width=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, num_experts=2, guidance_dim=16
)
WAYS = {"whole maps": {}, "strips": {"whole_bytes": 0}}
WAYS["streamed"] = WAYS["strips"] | {"stream_bytes": 0}
SIZES = ((256, 256), (3840, 2160))


class Widths(TorchFunctionMode):
    """Collects how many channels depthwise convolutions have."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.conv2d:
            groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
            self.seen |= {groups} if groups == len(args[1]) else set()
        return func(*args, **kwargs)


found = {}
widths = {way: set() for way in WAYS}
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
        with torch.inference_mode(), autocast, Widths() as convolved:
            embeddings = Embeddings(tokens, tokens, tokens[:, 0])
            if kind == "bytes":
                restorer.restore_bytes(image, embeddings)
            else:
                restorer(image / 255, embeddings)
        outcome = "ran"
        widths[way] |= convolved.seen
    except RuntimeError as problem:
        outcome = f"{type(problem).__name__}: {problem}"
    found[f"{way}, {precision}, {kind}"] = outcome

with torch.device("meta"):  # the image alone decides: the full network's weights are not needed
    restorer = Restorer(load_recipe("cdd11").model).eval()
runners = {}
for (width, height), precision in product(SIZES, ("float32", "bfloat16")):
    image = torch.empty(1, 3, height, width, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision != "float32"):
        runners[f"{width}x{height}, {precision}"] = type(restorer._runner(image)).__name__
widths = {way: sorted(seen) for way, seen in widths.items()}
print(json.dumps({"outcomes": found, "widths": widths, "runners": runners}))
