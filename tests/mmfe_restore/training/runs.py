"""Runs that are compared: what is in their folders, and whether two are the same."""

import csv

import torch
from safetensors.torch import load_file

TIMED = ("images_per_second", "data_wait")


def rows(out):
    with (out / "metrics.csv").open() as stream:
        return [
            {key: value for key, value in row.items() if key not in TIMED}
            for row in csv.DictReader(stream)
        ]


def weights(out):
    return load_file(out / "model" / "model.safetensors")


def assert_same_run(one, two):
    assert rows(one) == rows(two)
    assert (one / "router.csv").read_text() == (two / "router.csv").read_text()
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
