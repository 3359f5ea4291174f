"""Put a trained network into the package: float16 weights, their hash, a card of measured values.

    python -m benchmarks.restore_quality FOLDER --checkpoint RUN --window SIDE --json > quality.json
    python -m benchmarks.ship_model RUN --quality quality.json [--name mmfe-small]
        [--stopped-after STEPS]

RUN is a run's folder or its model/. `benchmarks.restore_windows` finds the windows that suit its
attention, and what quality.json was measured with is what it will restore with. Every float16 is
exact in float32, so what is shipped is what is computed with; the quality is measured once more
with ``--checkpoint NAME`` afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save as to_bytes

from mmfe_cache.io import counted, write_file
from mmfe_restore.model.folders import model_folder
from mmfe_restore.recipes import recipe_from_dict

WEIGHTS = Path(__file__).parents[1] / "src" / "mmfe_restore" / "weights"
MOST_BYTES = 8 * 2**20
"""What may go into the wheel."""

ABOUT = {
    "mmfe-small": {
        "description": "restores low light, haze, rain and snow, alone or together",
        "licence": "Apache-2.0",
        "training_data": "BSDS500 train + test (400), CID22 (135, CC BY-SA 4.0), LOL-v1 (20); "
        "degraded by the CDD11 model, half with real streaks and varied weather",
        "history": "began with 9,152 steps at 64² to 128² on pictures of up to 600 pixels and "
        "3,900 at 96² to 160², larger pictures too, guided by earlier weights of `scene`; then "
        "1,500 at 128² and 160², guided by the present ones; 250 at 96², half of the mixtures with "
        "a partial target too; then three times on pictures drawn anew, a third of the mixtures "
        "with one: 1,550 steps at 96² and 128² and 3,232 at 96² and 192² on 9,100 each, and 1,738 "
        "at 160² and 256² on 13,492, on a GPU",
    }
}
"""What `mmfe model list` says."""

ROWS = {
    "cbsd68": "CBSD68, 11 compositions, procedural weather",
    "cdd11-scenes": "24 scenes of CDD-11, real depth, unseen streaks, procedural snow",
    "official": "two official pairs of CDD-11",
    "rain100l": "Rain100L test, scenes never trained on, luma",
    "lol": "LOL-v1 eval15",
    "clear": "clear photographs against themselves",
}


def main(arguments: list[str] | None = None) -> int:
    """Write the folder and the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--quality", type=Path, required=True)
    parser.add_argument("--name", default="mmfe-small", choices=list(ABOUT))
    parser.add_argument("--stopped-after", type=int, metavar="STEPS", help="of a run cut short")
    options = parser.parse_args(arguments)
    source = model_folder(options.run)
    state = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    content = to_bytes(state, metadata={"format": "pt"})
    if len(content) > MOST_BYTES:
        print(f"{len(content)} bytes are more than the {MOST_BYTES} that may be shipped")
        return 1
    quality = json.loads(options.quality.read_text("utf-8"))
    config = json.loads((source / "config.json").read_text("utf-8"))
    for model in (config["model"], config["recipe"]["model"]):
        model["attention_window"] = quality["attention_window"]
    recipe_from_dict(config["recipe"])
    # What a run's folder says of its machine does not belong into a package.
    folder = WEIGHTS / options.name
    write_file(folder / "model.safetensors", content)
    write_file(folder / "config.json", json.dumps(config, indent=2) + "\n")
    digest = hashlib.sha256(content).hexdigest()
    write_file(
        folder / "README.md",
        card(options.name, config, quality["parts"], digest, options.stopped_after),
    )
    index = WEIGHTS / "index.json"
    listed: dict[str, Any] = json.loads(index.read_text("utf-8")) if index.exists() else {}
    said = {key: value for key, value in ABOUT[options.name].items() if key != "history"}
    listed[options.name] = {**said, "sha256": digest}
    write_file(index, json.dumps(listed, indent=2, sort_keys=True) + "\n")
    print(f"wrote {folder} ({len(content) / 2**20:.1f} MiB, SHA-256 {digest[:16]}…)")
    return 0


def _windows(side: int | None) -> list[str]:
    return [] if side is None else [f"- Its attention sums over windows of {side} pixels."]


def card(
    name: str,
    config: dict[str, Any],
    parts: dict[str, Any],
    digest: str,
    stopped_after: int | None = None,
) -> str:
    """The model card, with the Hub's front matter."""
    about, recipe = ABOUT[name], config["recipe"]
    stages = ", ".join(
        f"{counted(stage['epochs'], 'epoch')} of {stage['batch_size']} crops of "
        f"{stage['resolution']}²"
        for stage in recipe["train"]["stages"]
    )
    most = recipe["train"]["max_steps"]
    steps = "all of them" if most is None else f"of these the first {most:,} steps"
    if stopped_after is not None:
        steps += f", stopped after {stopped_after:,}"
    lines = [
        "---",
        "library_name: mmfe",
        f"license: {about['licence'].lower()}",
        "pipeline_tag: image-to-image",
        "datasets: [BSDS500, CID22, LOL-v1]",
        "metrics: [psnr]",
        "tags: [image-restoration, all-in-one, mixture-of-experts]",
        "---",
        "",
        f"# {name}",
        "",
        f"The network that `mmfe restore` uses: {about['description']}. Its guide is",
        "`scene`; both come with the package. Built after MMFE-IR (arXiv 2605.11444); not the",
        "authors' code or weights.",
        "",
        _item(f"Licence {about['licence']}. Trained on {about['training_data']}."),
        _item(
            f"It {about['history']}: recipe `{recipe['name']}`, {stages}, {steps}; "
            f"learning rate {recipe['train']['learning_rate']}, {recipe['train']['precision']}. "
            "`docs/restore.md` has the commands."
        ),
        *_windows(config["model"]["attention_window"]),
        f"- SHA-256 of model.safetensors (float16): {digest}",
        "",
        "| photographs not trained on | input, dB | restored, dB | least gain of a class |",
        "|---|---|---|---|",
    ]
    for part, said in ROWS.items():
        if part not in parts:
            continue
        one = parts[part]
        if part == "clear":
            worst = one["worst"]["restored"]
            lines.append(f"| {said} | | {one['restored']:.2f} (worst {worst:.2f}) | |")
        else:
            least = f"{one['least_gain']:+.2f}"
            lines.append(f"| {said} | {one['input']:.2f} | {one['restored']:.2f} | {least} |")
    return "\n".join(
        [
            *lines,
            "",
            "`python -m benchmarks.restore_quality FOLDER` measures this table. The network knows",
            "neither sensor noise by daylight nor blur; haze or rain of other kinds may stay.",
            "",
        ]
    )


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 110, subsequent_indent="  ", break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
