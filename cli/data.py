"""`mmfe data`: make, list, check and pack data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import choices, options, output
from .help import Application
from .options import FOLDER_NAMES, Dataset, Json, Root, Splits

if TYPE_CHECKING:
    from mmfe_cache.datasets import CheckReport, PartCheck

app = Application(no_args_is_help=True, help="Make, list, check and pack data sets.")


@app.command(epilog=FOLDER_NAMES)
def pack(
    dataset: Dataset = "cdd11",
    root: Root = None,
    split: Splits = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="As small as PNGs; crops take longer to read.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the packs, then a --root itself; default: ROOT/packed.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and compress.")] = 2,
    as_json: Json = False,
) -> None:
    """Pack the pictures of each split into one HDF5 file, so that crops read at memory speed.

    Everything that loads the data set takes the pack by itself; with --out, give that folder as
    --root. A stopped run goes on where it stopped.

    Example: mmfe data pack --dataset cdd11 --root /data/cdd11 --compress
    """
    from mmfe_cache.datasets import data_root, dataset_info, load_dataset, splits_of
    from mmfe_cache.packing import pack as write_pack, pack_path

    progress = output.console_progress()
    where = data_root(dataset, root)
    reports: list[dict[str, Any]] = []
    for name in split or splits_of(dataset, where):
        samples = load_dataset(dataset, name, where, packed=False)
        for warning in samples.warnings:
            progress.warn(warning)
        path = pack_path(where, dataset, name, shared=not dataset_info(dataset).own_root)
        if out is not None:
            path = out / path.name
        report = write_pack(samples, path, compress, progress, workers=workers)
        reports.append({"split": name, **report.to_json()})
    if as_json:
        output.print_json({"packs": reports})
        return
    output.print_table(
        f"packs of {dataset}",
        ("split", "pack", "samples", "pictures", "reused", "MiB", "of the files", "seconds"),
        [
            (
                entry["split"],
                entry["path"],
                entry["samples"],
                entry["pictures"],
                entry["reused"],
                entry["pack_bytes"] / 2**20,
                f"{entry['ratio']:.2f} x",
                entry["seconds"],
            )
            for entry in reports
        ],
        None if out is None else f"mmfe train, eval and cache build read them with --root '{out}'",
    )


@app.command()
def verify(
    dataset: Dataset = "cdd11", root: Root = None, split: Splits = None, as_json: Json = False
) -> None:
    """Read every picture of the packs and compare its digest; exits 1 where one is damaged.

    Example: mmfe data verify --dataset cdd11 --root /data/cdd11
    """
    from mmfe_cache.datasets import data_root, find_packs
    from mmfe_cache.errors import DataError

    where = data_root(dataset, root)
    progress = output.console_progress()
    found: list[dict[str, Any]] = [
        {
            "split": name,
            "path": str(reader.path),
            "pictures": len(reader),
            "damaged": list(reader.damaged(progress)),
        }
        for name, reader in find_packs(dataset, where, split)
    ]
    damaged = sum(len(entry["damaged"]) for entry in found)
    if as_json:
        output.print_json({"intact": not damaged, "packs": found})
    else:
        for entry in found:
            for name in entry["damaged"]:
                output.print_line(f"{entry['path']}: damaged: {name}")
            output.print_line(
                f"{entry['path']}: read {entry['pictures']:,} pictures; "
                f"{len(entry['damaged']) or 'nothing'} damaged"
            )
    if damaged:
        raise DataError(
            f"{damaged} pictures are damaged",
            remedy=" and ".join(f"rm '{e['path']}'" for e in found if e["damaged"])
            + ", then the `mmfe data pack` that wrote it",
        )


@app.command()
def synth(
    photos: Annotated[Path, typer.Argument(help="Folder of clean photographs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new set, in CDD11's layout.")],
    test_photos: Annotated[
        Path | None,
        typer.Option(help="Photographs of the test split; without it PHOTOS is split by scene."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other weather.")] = 0,
    max_side: Annotated[
        int | None, typer.Option(help="Shrink photographs whose longer side is larger, in pixels.")
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(help="Part of the scenes that goes to test; 1 writes a test split only."),
    ] = 0.2,
    composition: Annotated[
        list[choices.Composition] | None,
        typer.Option(help="Write this class only; may be given several times. Default: all 11."),
    ] = None,
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Add a class `clear`: photographs to which nothing was done."),
    ] = False,
    partial_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Of the pictures with several degradations, the share that is there again with a "
            "target in which some of them stay: trains `mmfe restore --only`.",
        ),
    ] = 0.0,
    rain_masks: options.RainMasks = None,
    snow_masks: options.SnowMasks = None,
    depth: options.Depth = None,
    light_maps: options.LightMaps = None,
    dark_photos: options.DarkPhotos = None,
    mask_share: options.MaskShare = 1.0,
    varied_share: options.VariedShare = 0.0,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads; the bytes do not depend on it.")
    ] = 2,
    as_json: Json = False,
) -> None:
    """Write a CDD11-shaped set: clear photographs and 11 compositions of degradations.

    A stopped run goes on where it stopped. `mmfe cache build --dataset cdd11 --root OUT` takes
    the result as it is.

    Example: mmfe data synth photos/ --out data/mine --max-side 512
    """
    from mmfe_cache.datasets import write_synth
    from mmfe_cache.degradations import CLEAR, COMPOSITIONS

    classes = tuple(one.value for one in composition) if composition else COMPOSITIONS
    config = options.degradation_config(
        rain_masks, snow_masks, depth, light_maps, dark_photos, mask_share, varied_share
    )
    report = write_synth(
        photos,
        out,
        test_photos=test_photos,
        seed=seed,
        max_side=max_side,
        test_share=test_share,
        partial_share=partial_share,
        compositions=(*classes, CLEAR) if clear else classes,
        config=config,
        workers=workers,
        progress=output.console_progress(),
    )
    if as_json:
        output.print_json(report.to_json())
        return
    output.print_table(
        f"CDD11-shaped set in {report.out}",
        ("split", "photographs", "classes", "pairs"),
        [
            (split, count, len(report.compositions), report.pairs[split])
            for split, count in report.scenes.items()
        ],
        f"{report.written} pictures written, {report.reused} were there, {report.seconds:.1f} s",
    )


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the data sets that are known; --json names page, size and terms of each."""
    from dataclasses import asdict

    from mmfe_cache.datasets import DATASETS

    if as_json:
        output.print_json(
            {
                "datasets": [
                    {
                        "name": info.name,
                        "description": info.description,
                        "published": dict(info.pairs) if info.pairs else None,
                        "sources": [asdict(origin) for origin in info.origins],
                    }
                    for info in DATASETS.values()
                ]
            }
        )
        return
    output.print_table(
        "Data sets",
        ("name", "train", "test", "what"),
        [
            (
                info.name,
                info.pairs["train"] if info.pairs else None,
                info.pairs["test"] if info.pairs else None,
                info.description,
            )
            for info in DATASETS.values()
        ],
        "published numbers of samples; every noise level counts. Where to get them: --json",
    )


@app.command(epilog=FOLDER_NAMES)
def check(
    dataset: Dataset = "cdd11",
    root: Root = None,
    split: Splits = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read headers only and compare no photographs.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read.")] = 2,
    as_json: Json = False,
) -> None:
    """Say what is there: layouts, counts, missing partners, sizes, unreadable files, leaks.

    Exits 0 when everything that was published, or recorded by mmfe data synth, is there and usable,
    1 when not.

    Example: mmfe data check --dataset aio5 --root /data/allinone
    """
    from mmfe_cache.datasets import check_dataset

    report = check_dataset(
        dataset,
        root,
        splits=split,
        decode=not fast,
        leaks=not fast,
        workers=workers,
        progress=output.console_progress(),
    )
    epoch = _epoch(dataset, report)
    if as_json:
        output.print_json({**report.to_json(), "epoch": epoch})
    else:
        _print_check(report, epoch)
        output.print_wrapped(_verdict(report))
    if not report.ok:
        raise typer.Exit(1)


def _verdict(report: CheckReport) -> str:
    """One sentence: whether the data set is whole, and if not, why."""
    if report.ok:
        return f"{report.dataset} is whole."
    counts = (
        ("parts are not there", sum(part.layout is None for part in report.parts)),
        (
            f"parts have fewer files than {_counted(report)}",
            sum(part.layout is not None and part.incomplete for part in report.parts),
        ),
        ("files or partners are missing", sum(len(part.missing) for part in report.parts)),
        ("files cannot be read", sum(len(part.unreadable) for part in report.parts)),
        ("pairs differ in size", sum(len(part.mismatched) for part in report.parts)),
        ("test photographs are in the training split", len(report.leaks)),
    )
    reasons = "; ".join(f"{count} {what}" for what, count in counts if count)
    return f"{report.dataset} is not whole ({reasons}), so this exits with 1."


def _counted(report: CheckReport) -> str:
    """Who says how many files there should be: one data set has one answer."""
    return report.parts[0].counted if report.parts else "published"


def _epoch(dataset: str, report: CheckReport) -> dict[str, Any] | None:
    """How often the recipe of this name draws each label in one epoch, None without one."""
    from mmfe_restore.recipes import load_recipe, recipe_names

    if dataset not in recipe_names():
        return None
    repeats = load_recipe(dataset).data.repeats
    draws: dict[str, dict[str, int]] = {}
    for part in report.parts:
        if part.split != "train":
            continue
        for label in part.labels:
            repeat = repeats.get(label, repeats.get("*", 1))
            there = part.samples // len(part.labels)
            draws[label] = {"samples": there, "repeats": repeat, "draws": there * repeat}
    return {"recipe": dataset, "labels": draws, "draws": sum(d["draws"] for d in draws.values())}


def _sizes(part: PartCheck) -> str | None:
    """The commonest size of a part's pictures, and how many others there are."""
    from mmfe_cache.io import counted

    sizes = list(part.sizes)
    if len(sizes) < 2:
        return sizes[0] if sizes else None
    return f"{sizes[0]} and {counted(len(sizes) - 1, 'other')}"


def _print_check(report: CheckReport, epoch: dict[str, Any] | None) -> None:
    from mmfe_cache.datasets.registry import dataset_info

    layouts = {part.layout or "not there" for part in report.parts}
    # One for all of them is said once; a column of it leaves no room for the others.
    several = len(layouts) > 1
    output.print_table(
        f"{report.dataset} under {report.root}" + ("" if several else f": {layouts.pop()}"),
        (
            "part", *(("layout",) if several else ()),
            "found", _counted(report), "samples", "missing", "bad", "sizes",
        ),
        [
            (
                # With its split: a table that continues below repeats its first column alone.
                f"{part.split}: {part.name}",
                *((part.layout or "not there",) if several else ()),
                part.found,
                part.published,
                part.samples,
                len(part.missing),
                len(part.unreadable) + len(part.mismatched),
                _sizes(part),
            )
            for part in report.parts
        ],
    )  # fmt: skip
    shown = report.parts
    if all(part.layout is None for part in shown):
        # Nothing at all: a wrong root. One part says which folders are looked for.
        shown, epoch = shown[:1], None
        output.print_line(f"nothing of {report.dataset} is under {report.root}")
        for origin in dataset_info(report.dataset).origins:
            output.print_line(f"where to get {origin.name}: {origin.page}")
        output.print_line("what is looked for, by the example of the first part:")
    for part in shown:
        for what, names in (
            ("missing", part.missing),
            ("unreadable", part.unreadable),
            ("different sizes", part.mismatched),
            ("not used", part.extra),
            ("note", part.notes),
        ):
            for name in names:
                output.print_line(f"{part.split}, {part.name}: {what}: {name}")
    if epoch is not None and epoch["labels"]:
        output.print_table(
            f"one epoch of recipe {epoch['recipe']}: {epoch['draws']} draws",
            ("label", "samples", "repeats", "draws"),
            [
                (label, entry["samples"], entry["repeats"], entry["draws"])
                for label, entry in epoch["labels"].items()
            ],
        )
    if report.compared != (0, 0):
        for split, count, distinct in zip(
            ("train", "test"), report.compared, report.distinct, strict=True
        ):
            output.print_line(f"{split}: {count} clean photographs, {distinct} different ones")
        output.print_line(f"{len(report.leaks)} test photographs are in the training split too")
    for leak in report.leaks:
        output.print_line(f"leak: {leak.test} = {leak.train}")
