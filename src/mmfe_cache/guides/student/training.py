"""How a student learns: from the pictures and the embeddings of its teacher's cache.

One command: ``mmfe guide distill CACHE --root DIR --out FILE``. Seeded; a run that was killed goes
on from the last state that it wrote, to the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfe_cache.embeddings import ARRAY_NAMES, ArrayName, Embeddings
from mmfe_cache.errors import CacheError, GuideError, UsageError
from mmfe_cache.guides.lineage import guide_fingerprint
from mmfe_cache.guides.scene.guide import read_scene
from mmfe_cache.guides.scene.training import average_from_now, one_cycle
from mmfe_cache.guides.student.agreement import Agreement, measure_agreement
from mmfe_cache.guides.student.data import TeacherData, ids_learnt, split_scenes
from mmfe_cache.guides.student.guide import Student, StudentGuide, load_student, save_student
from mmfe_cache.guides.student.network import MAX_PARAMETERS, StudentNetwork, relations
from mmfe_cache.io import counted, write_file
from mmfe_cache.machine import float32_products, require_bf16
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, SampleSet
from mmfe_cache.store import CacheReader
from mmfe_cache.views import View

SETTLING = 64
"""Batches over which the norms' statistics are taken at the end."""

WEIGHTS: Mapping[str, float] = {"image": 1.0, "joint": 1.0, "answer": 2.0, "relations": 1.0}
"""The share of each term in the loss; each term is 0 for the teacher and about 1 for its mean."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides a student, beside its teacher's cache.

    Attributes:
        steps: optimiser steps.
        seed: of the initial weights and the batches.
        hold_out: share of the photographs set aside to measure on.
        variance: share of the variance that each basis must hold.
        max_rank: axes of a basis at most, whatever they hold.
        init: whether the network begins with the eyes of the shipped ``scene`` or at random.
        learning_rate: the peak of a one-cycle schedule (AdamW).
    """

    steps: int = 3000
    seed: int = 0
    hold_out: float = 0.1
    variance: float = 0.99
    max_rank: int = 256
    init: Literal["scene", "random"] = "scene"
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class Distillation:
    """What a run did.

    Attributes:
        sha256: of the file.
        facts: as in the file.
        agreement: on the photographs set aside; None where there are none, or nothing was done.
        seconds: wall time of this call.
        resumed: the step that an earlier call had reached; the last one where nothing was done.
    """

    sha256: str
    facts: Mapping[str, Any]
    agreement: Agreement | None
    seconds: float
    resumed: int


def state_path(out: Path) -> Path:
    """Where an unfinished run keeps its state."""
    return out.with_name(f"{out.name}.state")


@float32_products()
def distill(
    cache: CacheReader,
    samples: SampleSet,
    out: Path,
    settings: Settings | None = None,
    *,
    device: torch.device | None = None,
    workers: int = 2,
    save_every: float = 60.0,
    progress: Progress | None = None,
) -> Distillation:
    """Train a student on a teacher's cache, at all its finished views.

    Where ``out`` is the student that this would train, nothing is done.

    Args:
        cache: the teacher's.
        samples: the split that it was built from.
        out: the file to write; `state_path` beside it until the run is finished.
        settings: None for the defaults.
        device: where to train; None for the CPU.
        workers: threads that read pictures; the result does not depend on it.
        save_every: seconds between two states.
        progress: where to report.

    Raises:
        CacheError: the cache has no finished view, or was built from other samples or pixels.
        DataError: there are too few photographs to set some aside.
        GuideError: the teacher sees no pictures, or is a student.
        UsageError: ``out`` is there and is another file, the state of another run lies beside it,
            or a GPU without bfloat16.
    """
    require_bf16(device or "cpu", "--device cpu")
    chosen, report = settings or Settings(), progress or Progress()
    started = time.perf_counter()
    run = _Run(cache, samples, chosen, device or torch.device("cpu"), report)
    if out.exists() and not state_path(out).exists():
        student, digest = run.finished(out)
        report.message(f"{out} is complete: {chosen.steps:,} steps; nothing to do")
        seconds = time.perf_counter() - started
        return Distillation(digest, student.facts, None, seconds, chosen.steps)
    network, optimiser, done = run.resume(state_path(out))
    if done:
        report.message(f"going on at step {done} of {chosen.steps}: {state_path(out)}")
    else:
        report.message(run.introduce(network))
    network = run.train(network, optimiser, done, state_path(out), workers, save_every)
    facts = run.facts(network)
    student = Student(
        network.cpu(), cache.guide, run.fingerprint, tuple(v.name for v in run.views), facts
    )
    digest = save_student(student, out)
    found = None
    if run.held_out:
        guide = StudentGuide(out, device=run.device)
        found = measure_agreement(guide, cache, run.held_out, student.views, progress=report)
        student = replace(student, facts={**facts, "agreement": found.to_json()})
        digest = save_student(student, out)
    state_path(out).unlink(missing_ok=True)
    return Distillation(digest, student.facts, found, time.perf_counter() - started, done)


class _Run:
    """One distillation: its samples, its settings, and what it draws from them."""

    def __init__(
        self,
        cache: CacheReader,
        samples: SampleSet,
        settings: Settings,
        device: torch.device,
        report: Progress,
    ) -> None:
        self.cache, self.settings, self.device, self.report = cache, settings, device, report
        self.fingerprint = guide_fingerprint(cache.fingerprint)
        if self.fingerprint.get("guide.guide") in ("oracle", "student"):
            raise GuideError(
                f"the guide {cache.guide} is no teacher",
                got={
                    "oracle": "it reads recorded severities, which no picture holds",
                    "student": "it is a student itself",
                }[str(self.fingerprint["guide.guide"])],
                expected="the cache of a guide that sees pictures",
            )
        self.views = tuple(View.parse(name) for name in cache.views)
        if not self.views:
            raise CacheError(f"{cache.path} has no finished view", remedy="mmfe cache build")
        gone = set(cache.skipped)
        there = [sample for sample in samples if sample.id not in gone]
        learnt, self.held_out, self.scenes = split_scenes(there, settings.hold_out, settings.seed)
        self.learnt = ids_learnt(learnt)
        self.data = TeacherData(cache, learnt, self.views, seed=settings.seed)
        self.shares: dict[ArrayName, float] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """What a state must agree in to be gone on with."""
        return {
            "cache": self.cache.metadata.id,
            "views": [view.name for view in self.views],
            # A repair may have taken in samples that a build had skipped.
            "learnt": self.learnt,
            **asdict(self.settings),
        }

    def facts(self, network: StudentNetwork) -> dict[str, Any]:
        """What is kept of the run in the file."""
        return {
            **self.identity,
            "dataset": self.cache.dataset,
            "split": self.cache.split,
            "pictures": len(self.data),
            "held_out_scenes": self.scenes,
            "parameters": network.parameter_count,
            "ranks": {n: len(network.get_buffer(f"axes_{n}")) for n in ARRAY_NAMES},
            "shares": self.shares,
        }

    # Beginning, and beginning again

    def finished(self, out: Path) -> tuple[Student, str]:
        """The student in ``out`` and its SHA-256, where it is the one that this run would train.

        Raises:
            UsageError: it is another one, or no student.
        """
        try:
            student, digest = load_student(out)
        except GuideError:
            differing = ["no student"]
        else:
            new, old = self.identity, student.facts
            differing = [f"{key}: {old.get(key)}" for key in new if old.get(key) != new[key]]
            if not differing:
                return student, digest
        raise UsageError(
            f"{out} is there and is not the student that this command trains; networks and caches "
            "may have been made with it",
            got=", ".join(differing),
            expected="a new file, or this distillation's own",
            remedy="give another --out, or remove the file",
        )

    def resume(self, path: Path) -> tuple[StudentNetwork, torch.optim.Optimizer, int]:
        """The network and its optimiser as an earlier call left them, or new ones."""
        state = _read_state(path)
        if state is None:
            chosen = self.settings
            bases = self.data.bases(chosen.variance, chosen.max_rank, self.report)
            self.shares = {name: bases[name].share for name in ARRAY_NAMES}
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(self.settings.seed)
                network = StudentNetwork(bases)
            if self.settings.init == "scene":
                mine = network.state_dict()
                known = {k: v for k, v in read_scene()[0].items() if k in mine}
                network.load_state_dict({**mine, **known})
            network = self._place(network)
            return network, self._optimiser(network), 0
        old, new = state["identity"], self.identity
        # An earlier version may not have written all of them.
        if differing := [key for key in new if old.get(key, new[key]) != new[key]]:
            raise UsageError(
                f"the state of another distillation lies at {path}",
                got=", ".join(f"{key}: {old[key]}" for key in differing),
                expected=", ".join(f"{key}: {new[key]}" for key in differing),
                remedy="go on with its settings, remove it, or give another --out",
            )
        self.shares = state["shares"]
        network = self._place(StudentNetwork.from_state(state["network"]))
        optimiser = self._optimiser(network)
        optimiser.load_state_dict(state["optimiser"])
        return network, optimiser, int(state["step"])

    def introduce(self, network: StudentNetwork) -> str:
        """One line for people, before a long training."""
        bases = ", ".join(
            f"{name} {len(network.get_buffer(f'axes_{name}'))} of {self.cache.dim} axes "
            f"({self.shares[name]:.1%} of the variance)"
            for name in ARRAY_NAMES
        )
        assert network.parameter_count <= MAX_PARAMETERS
        return (
            f"a student of {self.cache.guide}: {network.parameter_count / 1e6:.2f} M parameters, "
            f"{counted(len(self.data), 'picture')} at {counted(len(self.views), 'view')}; {bases}"
        )

    def _place(self, network: StudentNetwork) -> StudentNetwork:
        return network.to(self.device).to(memory_format=torch.channels_last)

    def _optimiser(self, network: StudentNetwork) -> torch.optim.Optimizer:
        rate = self.settings.learning_rate
        return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)

    # Training

    def train(
        self,
        network: StudentNetwork,
        optimiser: torch.optim.Optimizer,
        done: int,
        path: Path,
        workers: int,
        save_every: float,
    ) -> StudentNetwork:
        """All steps that are left; the network then is in evaluation mode."""
        steps, saved = self.settings.steps, time.monotonic()
        network.train()
        recent: deque[dict[str, float]] = deque(maxlen=50)
        with self.report.task("distilling", steps, "steps", done) as task:
            for step, (pictures, teacher) in enumerate(
                self.data.batches(done, steps, workers), start=done
            ):
                for group in optimiser.param_groups:
                    group["lr"] = self.settings.learning_rate * one_cycle(step / steps)
                terms = self._terms(network, pictures, teacher.to(self.device))
                loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 2.0)
                optimiser.step()
                recent.append({name: term.item() for name, term in terms.items()})
                task.advance()
                if (step + 1) % 25 == 0:
                    means = {n: float(np.mean([r[n] for r in recent])) for n in terms}
                    task.describe(", ".join(f"{n} {value:.3f}" for n, value in means.items()))
                if time.monotonic() - saved >= save_every and step + 1 < steps:
                    self._save(path, network, optimiser, step + 1)
                    saved = time.monotonic()
        return self._settle(network, workers)

    def _terms(
        self, network: StudentNetwork, pictures: Sequence[ImageArray], teacher: Embeddings
    ) -> dict[str, Tensor]:
        """Share of the variance that is missed of each kind, and of the answers' relations."""
        # The weights stay float32; products in bfloat16 nearly double the speed on a CPU.
        with torch.autocast(self.device.type, torch.bfloat16):
            pooled, cells = extract_features(network, pictures, self.device)
            found = network.embeddings(network.numbers(pooled.float(), cells.float()))
        terms: dict[str, Tensor] = {}
        for name in ARRAY_NAMES:
            mine, theirs = getattr(found, name), getattr(teacher, name)
            # Per number of the embedding; the axes hold the variance that there is to explain.
            axes = network.get_buffer(f"axes_{name}")
            per_token = axes.square().sum() / axes.shape[1]
            terms[name] = (mine.float() - theirs).square().mean() / per_token.clamp_min(1e-12)
        assert found.answer is not None
        assert teacher.answer is not None
        wanted, seen = relations(teacher.answer), relations(found.answer)
        off = ~torch.eye(len(wanted), dtype=torch.bool, device=wanted.device)
        spread = wanted[off].var(correction=0).clamp_min(1e-6)
        terms["relations"] = (F.mse_loss(seen[off], wanted[off]) / spread).clamp_max(10.0)
        return terms

    def _settle(self, network: StudentNetwork, workers: int) -> StudentNetwork:
        """Give the norms the average over many batches instead of the last ones'."""
        average_from_now(network)
        last = min(SETTLING, max(1, self.settings.steps // 4))
        with torch.no_grad():
            for pictures, _ in self.data.batches(0, last, workers):
                network.numbers(*extract_features(network, pictures, self.device))
        return network.eval()

    def _save(
        self, path: Path, network: StudentNetwork, optimiser: torch.optim.Optimizer, step: int
    ) -> None:
        buffer = io.BytesIO()
        state = {
            "identity": self.identity,
            "shares": self.shares,
            "step": step,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_file(path, hashlib.blake2b(content, digest_size=16).digest() + content)


def extract_features(
    network: StudentNetwork, pictures: Sequence[ImageArray], device: torch.device
) -> tuple[Tensor, Tensor]:
    """`StudentNetwork.features` of pictures of any sizes, in their order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(place)
    batches = [
        torch.from_numpy(np.stack([pictures[place] for place in places])).to(device)
        for places in groups.values()
    ]
    pooled, cells = network.features([b.permute(0, 3, 1, 2).float().div_(255) for b in batches])
    back = torch.argsort(torch.tensor([p for places in groups.values() for p in places])).to(device)
    return pooled[back], cells[back]


def _read_state(path: Path) -> dict[str, Any] | None:
    """An unfinished run's state; None where there is none.

    Raises:
        UsageError: it is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, content = content[:16], content[16:]
    try:
        if hashlib.blake2b(content, digest_size=16).digest() == digest:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, json.JSONDecodeError):
        pass
    raise UsageError(
        "the state of an unfinished distillation is damaged",
        got=path,
        remedy="remove it; the training then begins anew",
    )
