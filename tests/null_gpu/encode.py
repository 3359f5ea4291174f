"""Encodes three equal batches with each guide and prints what the host did for each of them."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from nullgpu import Watched

from mmfe_cache.guides import load_guide
from mmfe_cache.guides.toy import make_tiny

scratch = Path(sys.argv[1])
CARD = torch.device("cuda", torch.cuda.device_count() - 1)
SIDES = {"scene": (224, 256), "timm": (64,), "qwen2.5-vl": (56,), "fastvlm": (56,)}
FOUND = {}
for kind, sides in SIDES.items():
    if kind == "scene":
        guide = load_guide("scene", device=str(CARD))
    elif kind == "timm":
        guide = load_guide("timm:resnet10t", weights="random", device=str(CARD))
    else:
        guide = load_guide(make_tiny(scratch / kind, kind=kind), device=str(CARD))
    # More pixels than `scene` runs at once, and two sizes in turns: parts that are put in order.
    pictures = [np.zeros((side, side, 3), np.uint8) for side in sides] * (
        20 if kind == "scene" else 2
    )
    prepared = [guide.prepare(picture) for picture in pictures]
    FOUND[kind] = []
    for _ in range(3):
        with Watched() as seen:
            copy = guide.start(prepared)
        started = seen.now()
        done = copy.result()
        FOUND[kind].append({"started": started, "done": seen.now(), "sizes": len(sides)})
        assert not any(t.is_cuda for t in done.present().values())
print(json.dumps(FOUND))
