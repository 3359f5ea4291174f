"""`mmfe model`: what a recipe's network is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completion, output
from .help import Application

app = Application(no_args_is_help=True, help="Inspect networks.")


@app.callback()
def group() -> None:
    """Inspect networks."""


@app.command()
def info(
    recipe: Annotated[
        str, typer.Option(help="A recipe's name or a YAML file.", autocompletion=completion.recipes)
    ] = "cdd11",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a network's parameters, by part, beside the paper's figure.

    Example: mmfe model info --recipe table4a/mofe --json
    """
    from mmfe_restore import load_recipe

    named = load_recipe(recipe, overrides or ())
    from mmfe_restore.model import info as describe  # imports torch, which takes seconds

    found = describe(named)
    if as_json:
        output.print_json(found)
        return
    rows = [[name, f"{count:,}", f"{count / 1e6:.3f}"] for name, count in found["parts"].items()]
    rows.append(["total", f"{found['parameters']:,}", f"{found['parameters'] / 1e6:.3f}"])
    if found["published"] is not None:
        rows.append(["the paper prints", None, f"{found['published']:.1f}"])
    output.print_table(
        f"Parameters of {found['recipe']}",
        ["part", "parameters", "millions"],
        rows,
        caption=f"{found['description']}. {found['macs_256'] / 1e9:.1f} GMAC for one 256×256 image",
    )


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the networks that come with the package, with licence and training data.

    Example: mmfe restore photo.jpg -o restored/ --checkpoint mmfe-small
    """
    from mmfe_restore.model.folders import DEFAULT, shipped_models

    found = shipped_models()
    if as_json:
        output.print_json(
            {
                "models": [
                    {
                        "name": model.name,
                        "description": model.description,
                        "licence": model.licence,
                        "training_data": model.training_data,
                        "sha256": model.sha256,
                        "default": model.name == DEFAULT,
                    }
                    for model in found.values()
                ]
            }
        )
        return
    output.print_table(
        "Networks in the package",
        ("name", "licence", "what", "trained on"),
        [(m.name, m.licence, m.description, m.training_data) for m in found.values()],
        caption=f"mmfe restore uses {DEFAULT} unless --checkpoint names another",
    )
