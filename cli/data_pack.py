"""`mmfe data pack` and `mmfe data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import output
from .options import Dataset, Json, Root, Splits


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
