"""The report as one self-contained HTML page: sliders, error maps, bars, tables; no network."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mmfe_restore.evaluation.beside import ours_beside
from mmfe_restore.evaluation.pictures import ERROR_SCALE, Pictures, palette_css
from mmfe_restore.evaluation.scores import ImageScore
from mmfe_restore.evaluation.summary import LEVEL, Gain, Interval

if TYPE_CHECKING:
    from mmfe_restore.evaluation.report import EvalReport


def render_page(report: EvalReport) -> str:
    """The whole page; every name in it is escaped, every picture embedded."""
    title = f"{report.recipe} on {report.dataset}/{report.split}"
    guide = f"guide {report.guide}, {report.view}" if report.guide else "no guide"
    lead = f"{len(report.scores)} images, {guide}, protocol {report.protocol.name}"
    choice = (
        f"{len(report.pictures)} of {len(report.scores)} images, chosen by name before anything "
        "was restored: the same scenes of every class. Drag, tap or use the arrow keys."
    )
    parts = {
        "title": html.escape(title),
        "lead": html.escape(lead),
        "choice": html.escape(choice),
        "level": f"{LEVEL:.0%}",
        "palette": palette_css(),
        "scale": f"{ERROR_SCALE:g}",
        "css": _asset("page.css"),
        "js": _asset("page.js"),
        "data": _script_json(_page_data(report)),
    }
    page = _asset("page.html")
    # One pass over the template, so that nothing inserted is ever taken for a placeholder.
    pieces = page.split("{{")
    rendered = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        rendered += [parts[name], rest]
    return "".join(rendered)


def _asset(name: str) -> str:
    return files("mmfe_restore.evaluation").joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _page_data(report: EvalReport) -> dict[str, Any]:
    classes, average = report.intervals
    summary = report.summary
    place = {score.id: index for index, score in enumerate(report.scores)}
    return {
        "level": f"{LEVEL:.0%}",
        "average": {**_rounded(summary.average), **_gain(summary.gain)},
        "intervals": {"average": {"psnr": _pair(average["psnr"])}},
        "classes": [
            {
                "label": label,
                "count": summary.counts[label],
                "interval": _pair(classes[label]["psnr"]),
                **_rounded(means),
                **_gain(summary.gains[label]),
            }
            for label, means in summary.classes.items()
        ],
        "images": [_image(score) for score in report.scores],
        "pictures": [_picture(shown, place[shown.id]) for shown in report.pictures],
        "published": ours_beside(report),
        "facts": facts(report),
        "notes": [*report.notes, *summary.notes],
    }


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


def _picture(shown: Pictures, place: int) -> dict[str, Any]:
    encoded = {
        name: base64.b64encode(getattr(shown, name)).decode("ascii")
        for name in ("degraded", "restored", "clean", "error_before", "error_after")
    }
    return {
        "image": place,
        "mime": shown.mime,
        "width": shown.width,
        "height": shown.height,
        **encoded,
    }


def _rounded(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(k): round(v, 5) if math.isfinite(v) else None for k, v in values.items()}


def _pair(found: Interval) -> list[float | None]:
    return [round(v, 5) if math.isfinite(v) else None for v in (found.low, found.high)]
