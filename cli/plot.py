"""`mmfe plot`: the paper's figures from caches, runs and outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import choices, completion, output
from .help import Application
from .options import Json

if TYPE_CHECKING:
    from mmfe_cache.samples import Sample, SampleSet
    from mmfe_cache.store import CacheReader
    from mmfe_restore.figures.canvas import Drawing
    from mmfe_restore.model import Restorer
    from mmfe_restore.recipes import Recipe

app = Application(
    no_args_is_help=True, help="Draw the paper's figures: PNG, SVG and the data as CSV."
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the figure's files.")]
Force = Annotated[bool, typer.Option("--force", help="Write over a figure that is there.")]
Root = Annotated[Path | None, typer.Option("--root", help="Where the data set lies.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="The folder of the data set's caches, or one cache.")
]
Runs = Annotated[
    Path | None,
    typer.Option("--runs", help="Where the recipes' runs lie; else $MMFE_RUNS, else runs."),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        help="A run; may be given several times, or as NAME=RUN.",
        autocompletion=completion.runs,
    ),
]
Recipes = Annotated[
    str | None,
    typer.Option(
        "--recipes",
        help="Comma-separated recipes, or a table such as table5a: their runs, or those of equal "
        "recipes.",
        autocompletion=completion.lists_of_recipes,
    ),
]
FIGURES = Path("figures")


@app.command()
def embeddings(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="CACHE",
            help="A cache, a .zarr folder or its address; several of one split: side by side.",
        ),
    ],
    view: Annotated[str | None, typer.Option(help="Which view; each cache's last.")] = None,
    most: Annotated[int, typer.Option(min=4, help="Samples to draw, 2 a class at least.")] = 1100,
    root: Annotated[
        Path | None,
        typer.Option(help="The set, where it records severities: also draw which one dominates."),
    ] = None,
    out: Out = FIGURES,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Figures 1 and 5: how a guide arranges degraded images, by PCA and t-SNE.

    Several caches of one split stand side by side by t-SNE, as Figure 1's two panels do.

    Example: mmfe plot embeddings cache/cdd11/test/scene.zarr --root data/cdd11
    """
    from mmfe_cache.errors import CacheError
    from mmfe_cache.store import open_cache

    readers = [open_cache(path) for path in paths]
    for reader in readers:
        if view is None and not reader.views:
            raise CacheError(f"{reader.path} has no finished view", remedy="mmfe cache build")
    used = [(reader, reader.views[-1] if view is None else view) for reader in readers]
    known = None if root is None else _severities(readers[0], root)
    from mmfe_restore.figures import plot_compared, plot_embeddings  # they import torch, slowly

    if len(used) > 1:
        drawn = plot_compared(used, out, severities=known, most=most, force=force)
    else:
        drawn = plot_embeddings(*used[0], out, severities=known, most=most, force=force)
    _tell(drawn, as_json)


@app.command()
def routing(
    checkpoint: Checkpoints = None,
    recipes: Recipes = None,
    runs: Runs = None,
    cache: Cache = None,
    split: Annotated[choices.Split, typer.Option(help="Whose embeddings.")] = "test",
    view: Annotated[str | None, typer.Option(help="Which view; the recipe's.")] = None,
    most: Annotated[int, typer.Option(min=4, help="Samples to use, 2 a class at least.")] = 550,
    out: Out = FIGURES,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Figure 5: expert weights by class, and how the router space follows the embedding space.

    Example: mmfe plot routing --recipes table4b/full,table4b/multiscale
    """
    from mmfe_cache.store import open_cache
    from mmfe_restore.data import find_store

    found, recipe = _find(checkpoint, recipes, runs)
    reader = open_cache(find_store(recipe, recipe.data.dataset, split, cache))
    used = recipe.eval.view if view is None else view

    from mmfe_restore.figures import plot_routing

    drawn = plot_routing(_open(found), reader, used, out, most=most, force=force)
    _tell(drawn, as_json)


@app.command()
def experts(
    checkpoint: Checkpoints = None,
    recipes: Recipes = None,
    runs: Runs = None,
    image: Annotated[
        Path | None, typer.Option(help="A degraded image; else one of the test set.")
    ] = None,
    root: Root = None,
    sample: Annotated[
        str | None, typer.Option(help="A test sample's id, such as low_haze_rain/0001.")
    ] = None,
    site: Annotated[choices.Site, typer.Option(help="Which MoFE.")] = "encoder2",
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Also say how the router weighs each expert for the sample: the folder of the "
            "data set's caches, or one cache."
        ),
    ] = None,
    out: Out = FIGURES,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Figures 6, 7 and 8: what every expert changes, by rising frequency, with its spectrum.

    Figure 6 is one run, 7 the table of numbers of experts, 8 that of domains.

    Example: mmfe plot experts --recipes table5a --out figures/7
    """
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.datasets.same_pixels import check_same_pixels
    from mmfe_cache.errors import UsageError
    from mmfe_cache.images import read_rgb8
    from mmfe_cache.store import open_cache
    from mmfe_restore.data import find_store

    of_a_set = {"--sample": sample, "--cache": cache, "--root": root}
    given = [name for name, value in of_a_set.items() if value is not None]
    if image is not None and given:
        raise UsageError(
            f"--image and {given[0]} exclude each other",
            got=f"--image {image}",
            expected="a picture of your own, or a test sample, whose embedding a cache holds",
        )
    found, recipe = _find(checkpoint, recipes, runs)
    reader = None
    if image is not None:
        pixels, named = read_rgb8(image), image.name
    else:
        samples = load_dataset(recipe.data.dataset, "test", root)
        chosen = _choose(samples, None if sample is None else [sample], 1)[0]
        if cache is not None:
            reader = open_cache(find_store(recipe, samples.dataset, samples.split, cache))
            check_same_pixels(samples, reader)
        pixels, named = chosen.degraded.read(), chosen.id

    from mmfe_restore.figures import Subject, plot_experts

    subject = Subject(pixels, named, reader)
    _tell(plot_experts(_open(found), subject, out, site=site, force=force), as_json)


@app.command()
def errors(
    methods: Annotated[
        list[str], typer.Option(help="NAME=RUN or NAME=FOLDER of restored images; several times.")
    ],
    dataset: Annotated[
        str, typer.Option(help="Whose test set.", autocompletion=completion.datasets)
    ] = "cdd11",
    root: Root = None,
    cache: Cache = None,
    sample: Annotated[
        list[str] | None, typer.Option(help="A test sample's id; several times.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many samples where none is named.")] = 3,
    out: Out = FIGURES,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Figures 3, 4, S1 and S2: methods beside input and ground truth, error maps below.

    Example: mmfe plot errors --methods ours=runs/cdd11 --methods OneRestore=outputs/onerestore
    """
    from mmfe_cache.datasets import DATASETS, load_dataset
    from mmfe_restore.figures import method_of, plot_errors

    samples = load_dataset(dataset, "test", root)
    chosen = _choose(samples, sample, count)
    found = [method_of(text, samples, cache) for text in methods]
    crop = DATASETS[dataset].crop_multiple
    _tell(plot_errors(chosen, found, out, crop=crop, force=force), as_json)


def _find(
    checkpoints: Sequence[Path] | None, recipes: str | None, runs: Path | None
) -> tuple[list[tuple[str, Path]], Recipe]:
    """Name and folder of each network that was asked for, and the first one's recipe."""
    from mmfe_cache.errors import UsageError
    from mmfe_cache.places import RUNS
    from mmfe_restore.figures import named_path
    from mmfe_restore.model.folders import model_folder, newest_checkpoint, recipe_of
    from mmfe_restore.recipes import recipe_names

    if runs is not None and not runs.is_dir():
        # Below it MISSING/cdd11 would be taken for a network on the Hub, and looked for there.
        raise UsageError(
            f"there is no folder {runs}",
            got=f"--runs {runs}",
            expected="the folder in which the recipes' runs lie",
            remedy="leave --runs out for $MMFE_RUNS, else runs",
        )
    place = RUNS.folder if runs is None else runs
    wanted = [named_path(str(c)) for c in checkpoints or ()]
    for given in [] if recipes is None else recipes.split(","):
        table = [n for n in recipe_names() if n.startswith(f"{given.strip()}/")]
        wanted += [(n, _run_of(n, place)) for n in sorted(table, key=_numbers) or [given.strip()]]
    found = [(name, model_folder(path)) for name, path in wanted] or [("", newest_checkpoint())]
    return found, recipe_of(found[0][1])


def _run_of(recipe: str, runs: Path) -> Path:
    """A recipe's run; `mmfe ablate` trains rows that are the same training once."""
    from mmfe_restore.evaluation.ablation_rows import place_of
    from mmfe_restore.model.folders import model_folder, recipe_of
    from mmfe_restore.recipes import changed_settings, load_recipe, recipe_names

    found = place_of(recipe, runs)
    changed: dict[str, object] = {}
    if recipe in recipe_names():
        changed = changed_settings(recipe_of(model_folder(found)), load_recipe(recipe))
    # Such as the rows that `mmfe ablate --set` trained: how, the figure would not tell.
    trained = "trained with " + ", ".join(f"{key} {value}" for key, value in changed.items())
    if found != runs / recipe:
        output.remark(
            f"{recipe} is drawn from {found}, {trained if changed else 'the same training'}"
        )
    elif changed:
        output.remark(f"{recipe} was {trained}")
    return found


def _open(found: Sequence[tuple[str, Path]]) -> list[tuple[str, Restorer]]:
    """Name and network of each."""
    from mmfe_restore.evaluation import load_checkpoint

    opened = [(name, load_checkpoint(folder)) for name, folder in found]
    names = [name or one.recipe.name for name, one in opened]
    # Two runs of one recipe are told apart by where they lie.
    return [
        (name if names.count(name) == 1 else f"{name} ({one.path})", one.restorer)
        for name, (_, one) in zip(names, opened, strict=True)
    ]


def _numbers(name: str) -> list[tuple[int, str]]:
    """Sorts experts-16 behind experts-8."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _severities(reader: CacheReader, root: Path) -> dict[str, dict[str, float]]:
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.datasets.same_pixels import check_same_pixels
    from mmfe_cache.errors import DataError

    samples = load_dataset(reader.dataset, reader.split, root)
    found = {one.id: dict(one.severities) for one in samples if one.severities is not None}
    missing = set(reader.ids) - found.keys()
    if missing:
        raise DataError(
            f"{root} does not record how strong the degradations are",
            got=f"nothing of {len(missing)} of the cache's samples, such as {min(missing)}",
            expected="the set that the cache was built from, made by `mmfe data synth`",
            remedy="leave --root out: the figure is drawn without dominance",
        )
    check_same_pixels(samples, reader)
    return found


def _choose(samples: SampleSet, names: Sequence[str] | None, count: int) -> list[Sample]:
    from mmfe_cache.errors import UsageError

    if names:
        by_id = {sample.id: sample for sample in samples}
        missing = [name for name in names if name not in by_id]
        if missing:
            raise UsageError(
                f"{samples.dataset}/{samples.split} holds no such sample",
                got=", ".join(missing),
                expected=f"such as {samples.samples[0].id}",
            )
        return [by_id[name] for name in names]
    # The hardest compositions first: those of most degradations.
    labels = sorted(samples.labels, key=lambda label: (-label.count("_"), label))
    groups = [[s for s in samples if s.label == label] for label in labels]
    # Another scene for each, where there are enough.
    return [group[place % len(group)] for place, group in enumerate(groups)][:count]


def _tell(drawn: Drawing, as_json: bool) -> None:
    if as_json:
        output.print_json(drawn.to_json())
        return
    for path in drawn.files:
        output.print_line(str(path))
    for panel in drawn.facts.get("panels", []):
        said = ""
        if panel.get("nearest") is not None:
            said = f"{panel['nearest']:.1%} of {panel['dominated']} mixtures lie nearest to what "
            said += f"dominates them, {panel['nearest_cosine']:.1%} by cosine (chance 25.0%; "
            said += f"composition alone at most {panel['composition_alone']:.1%})"
        said = said or f"two principal components: {panel['variance']:.1%} of the variance"
        output.print_wrapped(f"{panel['name']}, {panel['view']}: {said}")
    if "variance" in drawn.facts:
        output.print_wrapped(
            f"two principal components: {drawn.facts['variance']:.1%} of the variance"
        )
    if drawn.facts.get("nearest") is not None:
        output.print_wrapped(
            f"of {drawn.facts['dominated']} mixtures with a dominant part "
            f"{drawn.facts['nearest']:.1%} lie nearest to its centroid, "
            f"{drawn.facts['nearest_cosine']:.1%} by cosine "
            f"(chance 25.0%; composition alone at most {drawn.facts['composition_alone']:.1%})"
        )
    if "sample" in drawn.facts:
        output.print_line(f"drawn of {drawn.facts['sample']}")
    for run, values in drawn.facts.get("alignment", {}).items():
        output.print_line(f"alignment of {run}: {values['all sites']:.3f} over all sites")
