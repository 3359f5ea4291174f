"""The files that keep an evaluation: the figures as JSON and CSV, and one self-contained page."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from mmfe_cache.degradations import split_class
from mmfe_cache.errors import UsageError
from mmfe_cache.images import read_rgb8
from mmfe_cache.io import counted, draft_folder, write_file, write_json
from mmfe_restore.evaluation.report.eval_report import EvalReport, comparison_json
from mmfe_restore.evaluation.report.pictures import (
    BUDGET,
    ERROR_SCALE,
    Pictures,
    encode,
    palette_css,
)
from mmfe_restore.evaluation.statistics import LEVEL, Gain, ImageScore, Interval
from mmfe_restore.metrics.registry import METRICS, MetricInfo

if TYPE_CHECKING:
    from mmfe_restore.evaluation.compare import Difference


@dataclass(frozen=True)
class OtherRun:
    """Another training, judged on the same images.

    Attributes:
        name: its run's folder.
        differs: in which settings, for people.
        found: the page's run, B, less this one, A, in PSNR over all classes.
    """

    name: str
    differs: str
    found: Difference


def render_page(report: EvalReport, others: Sequence[OtherRun] = ()) -> str:
    """The whole page; every name in it is escaped, every picture embedded.

    Args:
        report: what it shows.
        others: other trainings on the same test images.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_asset("page.html")).render(
        title=f"Degraded photographs, restored (recipe {report.recipe})",
        lead=_lead(report),
        level=f"{LEVEL:.0%}",
        palette=palette_css(),
        scale=f"{ERROR_SCALE:g}",
        css=_asset("page.css"),
        js=_asset("page.js"),
        data=_script_json(_page_data(report, others)),
    )


_DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)


def with_photograph(page: str, photograph: Pictures) -> str:
    """A rendered page that also shows one restored photograph of no set."""
    found = _DATA.search(page)
    assert found is not None, "a page of `render_page`"
    # The data cannot hold the tag that ends it: `_script_json` escapes it.
    data = json.loads(found[2]) | {"photograph": _picture(photograph, None)}
    return page[: found.start(2)] + _script_json(data) + page[found.end(2) :]


def _lead(report: EvalReport) -> str:
    count, scenes = len(report.scores), len({score.scene for score in report.scores})
    # Said first: eleven versions of two photographs are no 22 photographs.
    what = f"{count} degraded photographs"
    if scenes < count:
        what = f"{count} degraded pictures of {counted(scenes, 'scene')}"
    guided = (
        f", guided by what the guide {report.guide} saw in each of them"
        if report.guide and report.control == "none"
        else ""
    )
    gain = report.summary.gain
    gained = ""
    if math.isfinite(gain.mean):
        verb = "gained" if gain.mean >= 0 else "lost"
        gained = f" On average they {verb} {abs(gain.mean):.2f} dB of PSNR over their inputs."
    return (
        f"{what}, from {report.test_set}, were restored{guided}, and compared "
        f"with the clean originals.{gained}"
    )


def _asset(name: str) -> str:
    return files("mmfe_restore.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _page_data(report: EvalReport, others: Sequence[OtherRun]) -> dict[str, Any]:
    classes, average = report.intervals
    summary = report.summary
    place = {score.id: index for index, score in enumerate(report.scores)}
    measured = [m for m in METRICS.values() if m.name in summary.average]
    return {
        "level": f"{LEVEL:.0%}",
        "metrics": [
            {
                "name": metric.name,
                "label": metric.label,
                "unit": metric.unit,
                "digits": metric.digits,
                "absent": "∞" if metric.infinite else "–",
            }
            for metric in measured
        ],
        "average": {**_rounded(summary.average), **_gain(summary.gain)},
        "intervals": {"average": {"psnr": _pair(average["psnr"])}},
        "classes": [
            {
                "label": label,
                "words": class_words(label),
                "count": summary.counts[label],
                "interval": _pair(classes[label]["psnr"]),
                **_rounded(means),
                **_gain(summary.gains[label]),
            }
            for label, means in summary.classes.items()
        ],
        "images": [_image(score) for score in report.scores],
        "pictures": [_picture(shown, place[shown.id]) for shown in report.pictures],
        "same_scenes": _same_scenes(report),
        "typical": _typical(report),
        "guide": _guide(report),
        "photograph": None,
        "others": [
            {"name": other.name, "differs": other.differs, "omission": other.found.omission}
            | _rounded({"psnr": other.found.a, "difference": other.found.mean})
            | {"interval": _pair(Interval(other.found.low, other.found.high))}
            for other in others
        ],
        # Figures of other images would look like a contest that never took place.
        "published": comparison_json(report) if report.published_test_set else None,
        "terms": terms(measured, summary.classes),
        "facts": facts(report),
        "notes": [*report.notes, *summary.notes],
    }


def _same_scenes(report: EvalReport) -> bool:
    """Whether there are several classes, and the pictures show the same scenes of each."""
    shown = {picture.id for picture in report.pictures}
    scenes: dict[str, set[str]] = {score.label: set() for score in report.scores}
    for score in report.scores:
        if score.id in shown:
            scenes[score.label].add(score.scene)
    return len(scenes) > 1 and len({frozenset(one) for one in scenes.values()}) == 1


def _typical(report: EvalReport) -> int | None:
    """Which picture explains the page: the one of the median gain, neither best nor worst."""
    scores = {score.id: score for score in report.scores}
    gains = [(scores[shown.id].gain, index) for index, shown in enumerate(report.pictures)]
    ranked = sorted(pair for pair in gains if math.isfinite(pair[0]))
    if not ranked:
        return 0 if report.pictures else None
    return ranked[(len(ranked) - 1) // 2][1]


def _guide(report: EvalReport) -> dict[str, str] | None:
    if report.guide is None or report.view is None:
        return None
    family, _, side = report.view.partition("@")
    side = side.partition("#")[0]
    how = {
        "whole": f"the whole picture, shrunk to {side}×{side} pixels",
        "crop": f"{side}×{side} pixels of the picture, as they are",
    }.get(family, "the whole picture")
    return {"name": report.guide, "how": how}


def facts(report: EvalReport) -> list[tuple[str, str]]:
    """How a report was measured, as names and values for people."""
    return [
        ("dataset", f"{report.dataset}/{report.split}, {len(report.scores)} images"),
        ("recipe", report.recipe),
        ("checkpoint", report.checkpoint or "–"),
        ("parameters", f"{report.parameters:,}"),
        ("guide", "none" if report.guide is None else f"{report.guide} ({report.tokens} tokens)"),
        ("view", report.view or "none"),
        ("control", report.control),
        ("protocol", f"{report.protocol.name}: {report.protocol.description}"),
        ("crop", report.crop),
        ("attention", report.attention),
        ("range", "0 to 1, restored images clamped"),
        ("rounding", report.rounding),
        ("guide calls", str(report.guide_calls)),
        ("seconds", f"{report.seconds:.1f}"),
    ]


def _image(score: ImageScore) -> dict[str, Any]:
    values = {**score.values, "gain": score.gain}
    return {"id": score.id, "label": score.label, **_rounded(values)}


def _gain(found: Gain) -> dict[str, Any]:
    return {**_rounded({"gain": found.mean}), "omission": found.omission}


def _picture(shown: Pictures, place: int | None) -> dict[str, Any]:
    encoded = {
        name: None if part is None else base64.b64encode(part).decode("ascii")
        for name, part in shown.parts.items()
    }
    return {
        "id": shown.id,
        "image": place,
        "mime": shown.mime,
        "width": shown.width,
        "height": shown.height,
        **encoded,
    }


def _rounded(values: Mapping[Any, float]) -> dict[str, float | None]:
    # More digits than any table prints: rounded twice, a figure would differ from the terminal's.
    return {str(k): round(v, 8) if math.isfinite(v) else None for k, v in values.items()}


def _pair(found: Interval) -> list[float | None]:
    return [None if end is None else round(end, 8) for end in found.to_json()]


DEGRADATIONS: dict[str, tuple[str, str]] = {
    "low": ("low light", "Taken in too little light: dark, and grainy once it is brightened."),
    "haze": ("haze", "Seen through mist: pale and without contrast, more so far away."),
    "rain": ("rain", "Streaks of falling rain lie over the picture."),
    "snow": ("snow", "Flakes of falling snow lie over the picture."),
    "blur": ("motion blur", "The camera or the scene moved while the picture was taken."),
    "noise": ("noise", "Random grain of a standard deviation σ, in levels of 0 to 255."),
}
"""What a class is named after: in words, and explained."""


def class_words(label: str) -> str:
    """A class in words: ``low_haze`` is "low light + haze"; a label of one's own is kept."""
    composition, wanted = split_class(label)
    parts = composition.split("_")
    if not all(part.partition("-")[0] in DEGRADATIONS for part in parts):
        return label
    words = " + ".join(map(_part_words, parts))
    if wanted is None:
        return words
    return f"{words}: {' and '.join(map(_part_words, wanted))} taken away, the rest kept"


def _part_words(part: str) -> str:
    kind, _, level = part.partition("-")
    words = DEGRADATIONS[kind][0]
    return f"{words} σ {level}" if kind == "noise" and level else words


def terms(metrics: Sequence[MetricInfo], labels: Iterable[str]) -> list[tuple[str, str]]:
    """Names and explanations of everything that a report of these metrics and classes names."""
    compositions = [split_class(label)[0] for label in labels]
    present = dict.fromkeys(p.partition("-")[0] for name in compositions for p in name.split("_"))
    return [
        *((metric.label, metric.explanation) for metric in metrics),
        (
            "gain",
            "PSNR of the restored image less that of its degraded input: what restoration added. "
            "An input that is identical to the original has no PSNR to start from and is left "
            "out.",
        ),
        (
            f"{LEVEL:.0%} interval",
            "Where the mean would probably lie for other photographs of the same kind.",
        ),
        *(DEGRADATIONS[kind] for kind in present if kind in DEGRADATIONS),
    ]


METRICS_FILE = "metrics.json"
PER_IMAGE = "per_image.csv"
PAGE = "report.html"


def write_report(
    report: EvalReport, out: Path, *, others: Sequence[OtherRun] = (), force: bool = False
) -> None:
    """Write metrics.json, per_image.csv and report.html; the folder appears whole.

    Raises:
        UsageError: ``out`` exists and ``force`` is not set.
    """
    check_free(out, force=force)
    with draft_folder(out) as draft:
        write_json(draft / METRICS_FILE, report.to_json())
        write_file(draft / PER_IMAGE, report.csv())
        write_file(draft / PAGE, render_page(report, others))


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over what is there.

    A folder that holds anything but a report is left alone even with ``force``.

    Raises:
        UsageError: ``out`` holds something.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    ours = {METRICS_FILE, PER_IMAGE, PAGE}
    is_report = out.is_dir() and (out / METRICS_FILE).is_file()
    if is_report and force:
        foreign = sorted(path.name for path in out.iterdir() if path.name not in ours)
        if not foreign:
            return
        raise UsageError(
            f"{out} holds more than a report",
            got=", ".join(foreign[:5]),
            remedy="choose another folder with --out",
        )
    raise UsageError(
        f"{out} exists",
        got="a report" if is_report else "something that is not a report",
        expected="a new folder",
        remedy="write over it with --force, or choose another folder with --out"
        if is_report
        else "choose another folder with --out",
    )


def add_photograph(out: Path, degraded: Path, restored: Path, clean: Path) -> None:
    """Show one more picture, of no set, on the page of a report that is written already.

    Raises:
        UsageError: the three differ in size.
    """
    images = [read_rgb8(path) for path in (degraded, restored, clean)]
    if len({image.shape for image in images}) > 1:
        raise UsageError(
            "the three pictures of the photograph differ in size",
            got=", ".join(f"{image.shape[1]}×{image.shape[0]}" for image in images),
            expected="degraded, restored and clean of one size",
        )
    shown = encode(degraded.stem, images[0], images[1], images[2], BUDGET // 12)
    page = (out / PAGE).read_text(encoding="utf-8")
    write_file(out / PAGE, with_photograph(page, shown))
