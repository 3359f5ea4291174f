"""`mmfe cache`: build, inspect, verify, repair and copy caches of embeddings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from . import cache_build, choices, completion, output
from .help import Application
from .options import FOLDER_NAMES, GuideDevice, Json

if TYPE_CHECKING:
    from mmfe_cache.embeddings import JointTokens
    from mmfe_cache.samples import SampleSet

app = Application(no_args_is_help=True, help="Build, inspect, verify and repair caches.")
app.command("build", epilog=FOLDER_NAMES)(cache_build.command)

Store = Annotated[str, typer.Argument(help="The store: a .zarr folder.")]


@app.command()
def info(
    path: Store,
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics", help="Measure the views of which an earlier version recorded nothing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a cache is: its data, guide, views and size, and what its embeddings are like.

    Example: mmfe cache info cache/cdd11/train/scene.zarr
    """
    from mmfe_cache.store import open_cache
    from mmfe_cache.store.info import describe, describe_text

    about = describe(open_cache(path), compute=statistics)
    if as_json:
        output.print_json(about)
        return
    for line in describe_text(about):
        output.print_line(line)


@app.command()
def verify(
    path: Store,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Also read and hash every source image again.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that hash images.")] = 2,
    as_json: Json = False,
) -> None:
    """Read a whole cache and name everything that is damaged; exits 3 if anything is.

    Example: mmfe cache verify cache/cdd11/train/scene.zarr --pixels
    """
    from mmfe_cache.errors import CacheError
    from mmfe_cache.names import first_few
    from mmfe_cache.store.verify import verify as verify_store

    samples = _source_of(path, root) if pixels else None
    progress = output.console_progress()
    report = verify_store(path, samples=samples, workers=workers, progress=progress)
    if as_json:
        output.print_json({"intact": report.intact, **asdict(report)})
    else:
        for damage in report.damages:
            touched = f" ({first_few(damage.samples, 4)})" if damage.samples else ""
            output.print_line(f"{damage.file}: {damage.problem}{touched}")
        images = f", {report.pixels:,} images" if pixels else ""
        output.print_wrapped(
            f"{report.path}: read {report.files:,} files, {report.chunks:,} embeddings{images}; "
            f"{len(report.damages) or 'nothing'} damaged"
        )
        for view in report.unfinished:
            output.print_line(
                f"{view} is not finished: mmfe cache build with the same options goes on"
            )
    if not report.intact:
        source = all(damage.kind == "source" for damage in report.damages)
        raise CacheError(
            f"{len(report.damages)} things are wrong with {path}",
            remedy="put the images back as they were, or build a new cache"
            if source
            else _repair_command(path, any(d.file == "zarr.json" for d in report.damages)),
        )


@app.command()
def repair(
    path: Annotated[Path, typer.Argument(help="The store: a .zarr folder.")],
    root: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            help="The guide, where it was a checkpoint's directory.",
            autocompletion=completion.guides,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set, where the store cannot say so any more.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    split: Annotated[choices.Split | None, typer.Option(help="The split, likewise.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The prompt, likewise.")] = None,
    joint: Annotated[
        Literal["all", "from-image"] | None, typer.Option(help="As for the build, likewise.")
    ] = None,
    device: GuideDevice = "auto",
    precision: Annotated[
        choices.Precision, typer.Option(help="Of the guide, as when the cache was built.")
    ] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that prepare images.")] = None,
    as_json: Json = False,
) -> None:
    """Compute again exactly what is damaged or missing in a cache.

    Samples that a build left out are taken in once their images can be read.

    Example: mmfe cache repair cache/cdd11/train/scene.zarr
    """
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.errors import CacheError, MmfeError
    from mmfe_cache.guides import check_guide, load_guide
    from mmfe_cache.machine import check_device, long_name
    from mmfe_cache.store.format import OtherOriginError
    from mmfe_cache.store.location import origins, refuse_address

    # What is missing or misspelt is said before torch is imported, which takes seconds.
    check_device(device)
    if guide is not None:
        check_guide(guide)
    refuse_address(path)
    found = tuple(origins(path))
    output.note_driver(device)

    from mmfe_cache.precompute.repair import RepairReport, repair_cache

    report: RepairReport | None = None
    tried = ""
    for origin in found:
        given = (dataset or origin.dataset, split or origin.split, guide or origin.guide)
        if None in given:
            continue
        name, part, named = map(str, given)
        # What a damaged root seems to say may be no precision at all; loading the guide tells.
        exact: Any = (origin.dtype or "auto") if precision == "auto" else long_name(precision)
        try:
            samples = load_dataset(name, part, root)
            loaded = load_guide(
                named,
                device=device,
                precision=exact,
                prompt=prompt or origin.prompt,
                joint=cast("JointTokens", joint or origin.joint or "all"),
            )
        except MmfeError as problem:
            if origin.certain:
                raise
            tried = f"{name}/{part} with the guide {named}, tried in vain: {problem.problem}"
            continue
        try:
            report = repair_cache(
                path, samples, loaded, workers=workers, progress=output.console_progress()
            )
            break
        except OtherOriginError as problem:
            tried = f"{name}/{part} with the guide {named}, tried in vain: {problem.problem}"
    if report is None:
        raise CacheError(
            f"the metadata of {path} cannot say what it was built from",
            got=tried or None,
            remedy="give --dataset, --split and --guide as when it was built, and --root, "
            "--prompt and --joint where they were given",
        )
    if as_json:
        output.print_json(
            {
                "path": str(path),
                "damages": [asdict(damage) for damage in report.damages],
                "revived": list(report.recovered),
                "encodings": report.encodings,
                "intact": report.after.intact,
            }
        )
    else:
        output.print_wrapped(
            f"{path}: {len(report.damages) or 'nothing'} was damaged, "
            f"{report.encodings} embeddings computed again"
        )
        for name in report.recovered:
            output.print_line(f"taken in, its image can be read now: {name}")
    if not report.after.intact:
        raise CacheError(
            f"{path} is still damaged",
            got="; ".join(f"{d.file}: {d.problem}" for d in report.after.damages[:3]),
            remedy="remove it and build it again",
        )


@app.command()
def pull(
    address: Annotated[str, typer.Argument(help="Such as s3://bucket/caches/train.zarr.")],
    path: Annotated[Path, typer.Argument(help="Where the copy is to lie.")],
    views: Annotated[str | None, typer.Option(help="Comma-separated; all without it.")] = None,
    as_json: Json = False,
) -> None:
    """Copy a remote cache to a local folder, where it reads at the speed of memory.

    Example: mmfe cache pull s3://bucket/cdd11/train/scene.zarr cache/cdd11/train/scene.zarr
    """
    from mmfe_cache.io import format_bytes
    from mmfe_cache.store.writer import pull as pull_store

    chosen = None if views is None else cache_build.named_views(views)
    count = pull_store(address, path, views=chosen, progress=output.console_progress())
    if as_json:
        output.print_json({"path": str(path), "bytes": count})
        return
    output.print_line(f"{path}: {format_bytes(count)} fetched")


def _source_of(path: str, root: Path | None) -> SampleSet | None:
    """The data set that a cache was built from; None where its root is too damaged to say so."""
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.errors import CacheError
    from mmfe_cache.store.format import METADATA_FILE, OtherVersionError, StoreMetadata
    from mmfe_cache.store.storage import open_storage

    try:
        # Only the root: verifying names whatever else is damaged.
        about = StoreMetadata.read(open_storage(path).read(METADATA_FILE), path)
    except OtherVersionError:
        raise
    except (CacheError, FileNotFoundError):
        return None
    return load_dataset(about.dataset, about.split, root)


def _repair_command(path: str, root_damaged: bool) -> str:
    from mmfe_cache.store.location import Origin, origins, repair_command

    if not root_damaged or "://" in path:
        return repair_command(path)
    found = next((origin for origin in origins(Path(path)) if origin.known), Origin())
    return (
        f"mmfe cache repair {path} --dataset {found.dataset or 'NAME'} "
        f"--split {found.split or 'SPLIT'} --guide {found.guide or 'GUIDE'}"
        " (as when it was built; --root, --prompt and --joint too, where they were given)"
    )
