"""Peak memory of a training step, ours and the reference's, as the caching allocator counts it."""

import gc
import json

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


recipe = load_recipe("cdd11")
tokens = torch.zeros(BATCH, 16, recipe.model.guidance_dim, device="cuda")
seen = Embeddings(tokens, tokens, tokens[:, 0])
found = {"reference": peak(Restormer()), "ours": peak(Restorer(recipe.model), seen)}
checkpointing = Restorer(recipe.model)
checkpointing.activation_checkpointing = True
found["checkpointing"] = peak(checkpointing, seen)
found["weights"] = sum(p.numel() for p in checkpointing.parameters()) * 4 / 2**20
print(json.dumps(found))
