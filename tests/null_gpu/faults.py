"""Plants one fault of each kind and prints what the null GPU saw of it, beside the right way."""

import json

import torch
from nullgpu import Watched

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.guides.base import AsyncCopy, to_device
from mmfe_restore.data import Batch
from mmfe_restore.kernels import block as fused
from mmfe_restore.model.restormer import TransformerBlock

CARDS = [torch.device("cuda", n) for n in (0, 1)]
FOUND = {}


def watch(name, work):
    with Watched() as seen:
        kept = work()  # alive until it was counted: events of a copy too
    FOUND[name] = {n: getattr(seen, n) for n in ("pageable", "waits", "unsettled")}
    torch.cuda.synchronize(CARDS[0])
    torch.cuda.synchronize(CARDS[1])
    return kept


def batch():
    kinds = Embeddings(torch.zeros(2, 16, 8), torch.zeros(2, 16, 8), torch.zeros(2, 8))
    kept = torch.ones(2, dtype=torch.bool)
    pixels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    more = {"keep": kept, "answers": torch.zeros(4, 8), "answers_keep": kept.repeat(2)}
    return Batch(pixels, pixels.clone(), step=0, embeddings=kinds, **more)


watch("pageable batch", lambda: batch().to(CARDS[0]))
watch("pinned batch", lambda: batch().pin_memory().to(CARDS[0]))
watch("pageable image", lambda: torch.zeros(4, 4, 3).to(CARDS[1]))
watch("image", lambda: to_device(torch.zeros(4, 4, 3), CARDS[1]))

total = torch.zeros(3, device=CARDS[0])
watch("reading a value", lambda: total.sum().item())
watch("keeping a value", lambda: total.sum())


def copy_back(recorded_on):
    host = torch.empty(8, pin_memory=True)
    host.copy_(torch.zeros(8, device=CARDS[1]), non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(recorded_on))
    event.synchronize()
    return host


watch("event of the current device", lambda: copy_back(None))
watch("event of its own device", lambda: copy_back(CARDS[1]))
there = Embeddings(answer=torch.zeros(2, 8, device=CARDS[1]))
watch("embeddings under way", lambda: AsyncCopy(there))
watch("embeddings waited for", lambda: AsyncCopy(there).result())

FOUND["kernels"] = []


def launched(x):
    FOUND["kernels"].append([torch.cuda.current_device(), x.device.index])
    return x.clone()


fused._Block.forward = lambda ctx, x, *weights: launched(x)
fused._Block.backward = lambda ctx, g: (launched(g), *11 * [None])
there = torch.zeros(1, 4, 4, 8, device=CARDS[1], requires_grad=True)
fused.run_block(TransformerBlock(8, 1, 2.66).to(CARDS[1]), there).sum().backward()

block = TransformerBlock(8, 1, 2.66).to(CARDS[0])
FOUND["network"] = []
for left_behind in (False, True):
    if left_behind:
        block.ffn.cpu()
    try:
        block(torch.zeros(1, 4, 4, 8, device=CARDS[0]))
        FOUND["network"].append("ran")
    except RuntimeError as problem:
        FOUND["network"].append(str(problem))
print(json.dumps(FOUND))
