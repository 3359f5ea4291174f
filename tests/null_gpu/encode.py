"""Encodes three equal batches with each guide and prints what the host did for each of them."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from nullgpu import Watched

from mmfe_cache.guides import load_guide
from mmfe_cache.guides.student.guide import Student, save_student
from mmfe_cache.guides.student.network import Basis, StudentNetwork
from mmfe_cache.guides.toy import make_tiny

scratch = Path(sys.argv[1])


def student():
    """The file of one that has learnt nothing."""
    rows = {"image": 17, "joint": 17, "answer": 1}
    bases = {n: Basis(torch.randn(t, 128), torch.randn(4, 128), 0.9) for n, t in rows.items()}
    teacher = {"guide.guide": "scene"}
    made = Student(StudentNetwork(bases).eval(), "scene", teacher, ("whole@224",), {})
    save_student(made, scratch / "student.safetensors")
    return scratch / "student.safetensors"


CARD = torch.device("cuda", torch.cuda.device_count() - 1)
# More pixels than `scene` and those that look with its like run at once, and two sizes in turns:
# parts that are put in order.
LARGE = (224, 256) * 20
PICTURES = {"scene": LARGE, "prompt": LARGE, "student": LARGE, "timm": (64, 64)}
PICTURES |= {"qwen2.5-vl": (56, 56), "fastvlm": (56, 56)}
FOUND = {}
for kind, sides in PICTURES.items():
    if kind in ("scene", "prompt"):
        guide = load_guide(kind, device=str(CARD))
    elif kind == "student":
        guide = load_guide(student(), device=str(CARD))
    elif kind == "timm":
        guide = load_guide("timm:resnet10t", weights="random", device=str(CARD))
    else:
        guide = load_guide(make_tiny(scratch / kind, kind=kind), device=str(CARD))
    pictures = [np.zeros((side, side, 3), np.uint8) for side in sides]
    prepared = [guide.prepare(picture) for picture in pictures]
    FOUND[kind] = []
    for _ in range(3):
        with Watched() as seen:
            copy = guide.start(prepared)
        started = seen.now()
        done = copy.result()
        FOUND[kind].append({"started": started, "done": seen.now(), "sizes": len(set(sides))})
        assert not any(t.is_cuda for t in done.present().values())
print(json.dumps(FOUND))
