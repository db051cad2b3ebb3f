"""`showtell train`, `showtell average` and `showtell export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH
from showtell.types import DecodeOptions


@click.command()
@click.argument("recipe", metavar="RECIPE", required=False)
@click.option("--data", type=PATH, multiple=True, metavar="DIR", help="A data set, in any of the usual layouts; repeatable.")
@options.reading
@options.split_seed
@click.option("--output", type=PATH, metavar="RUN_DIR", help="The run's folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the newest checkpoint in RUN_DIR, with its own RECIPE and --data unless given.",
)
@click.option(
    "--lenient", is_flag=True, help="Use the part that decodes of damaged photos; the same as --set data.lenient=true."
)
@click.option("--list", "list_", is_flag=True, help="List the recipes; with RECIPE, its keys with values and descriptions.")
def train(
    recipe: str | None,
    data: tuple[Path, ...],
    layout: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    split_seed: int,
    output: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    lenient: bool,
    list_: bool,
) -> int:
    """Train a captioner by RECIPE, a name such as `flickr8k` or `debug` or a .toml file.

    For several processes or GPUs: torchrun --standalone --nproc-per-node N -m showtell train ...
    """
    with options.needs("train", "training"):
        from showtell.train import recipe as recipes

    if list_:
        click.echo(recipes.describe_keys(recipes.Recipe.load(recipe, overrides)) if recipe else recipes.describe_recipes())
        return options.DONE
    overrides += ("data.lenient=true",) if lenient else ()
    columns = options.columns_of(image_column, caption_column, split_column)
    if resume and output is not None and not data:
        from showtell.train.run.folder import recall

        found = recall(output)
        data = tuple(map(Path, found["data"]))
        layout, columns, split_seed = found["layout"], options.columns_of(**found["columns"]), found["split_seed"]
    if resume and output is not None and recipe is None:
        recipe = str(output / "recipe.json")
    if recipe is None or not data or output is None:
        raise click.UsageError(
            "give RECIPE, --data DIR and --output RUN_DIR, or --resume and --output RUN_DIR; --list shows the recipes"
        )
    chosen = recipes.Recipe.load(recipe, overrides)
    with options.needs("train", "training"):
        from showtell.train.train import train as run

    with Console(every=options.SILENCE) as console:
        run(chosen, data, output, resume=resume, report=console, layout=layout, columns=columns, split_seed=split_seed)
    return options.DONE


@click.command()
@click.argument("checkpoints", type=PATH, metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--output", required=True, type=PATH, metavar="CHECKPOINT_DIR", help="A new folder.")
def average(checkpoints: tuple[Path, ...], output: Path) -> int:
    """Average the weights of checkpoints into a new one. A run's folder stands for its best checkpoint.

    The checkpoints must share a lineage, such as epochs of a run or runs that start from one model. One named twice counts
    twice.
    """
    from showtell.files import try_place

    with options.needs("train", "averaging"):
        from showtell.train.averaging import average as run
        from showtell.train.run.checkpoint import find

    if not output.exists():  # an existing folder is refused below
        try_place(output, parents=True)
    made = run([find(path) for path in checkpoints], output)
    tell(f"{made.path}: the mean of {len(checkpoints)}")
    tell(f"next: showtell export {made.path} --output BUNDLE_DIR")
    return options.DONE


@click.command()
@click.argument("checkpoint", type=PATH, metavar="CHECKPOINT")
@click.option("--output", required=True, type=PATH, metavar="BUNDLE_DIR", help="A new folder.")
@click.option("--quantize", type=click.Choice(["none", "int8"]), show_default="none, or as --encoder")
@click.option(
    "--calibration",
    type=PATH,
    metavar="DIR",
    help="For int8: photos to calibrate on, a folder of photos or a data set (its train photos).",
)
@options.layout
@click.option("--encoder", metavar="BUNDLE", help="Use the encoder of this bundle, a name or folder, instead of exporting one.")
@click.option(
    "--calibration-photos", type=click.IntRange(1), default=96, show_default=True, help="Number of calibration photos."
)
@click.option("--name", help="The bundle's name.  [default: its folder's, or for `bundle` the folder's around it]")
@click.option("--licence", default="", help="Licence of the weights, kept in the bundle.")
@click.option("--card", type=PATH, metavar="FILE", help="A model card in Markdown, kept in the bundle as model-card.md.")
@options.search_options
def export(
    checkpoint: Path,
    output: Path,
    quantize: Any,
    calibration: Path | None,
    layout: str | None,
    calibration_photos: int,
    encoder: str | None,
    name: str | None,
    licence: str,
    card: Path | None,
    **search: Any,
) -> int:
    """Export a checkpoint as a bundle, which runs without torch. A run's folder stands for its best checkpoint.

    The bundle's default search options are those of the recipe's validation, unless given here.
    """
    from showtell.bundle import Bundle
    from showtell.files import try_place

    with options.needs("train", "exporting"):
        from showtell.export import calibration_inputs
        from showtell.export import export as run
        from showtell.train.run.checkpoint import find

    if encoder and quantize:
        raise click.UsageError("--encoder decides how the bundle is quantised; leave --quantize out")
    if not output.exists():  # an existing folder is refused below
        try_place(output, parents=True)
    found = find(checkpoint)
    taken = Bundle.find(encoder) if encoder else None
    photos = []
    if calibration and (quantize == "int8" or taken):
        photos = calibration_inputs(
            found, calibration, calibration_photos, layout, lambda reason: tell(f"left out of calibration: {reason}")
        )
    search_options = DecodeOptions.from_json(found.config.recipe["validation"]).updated(**search)
    run(
        found,
        output,
        quantize=quantize or "none",
        calibration=photos,
        encoder=taken,
        options=search_options,
        name=name,
        licence=licence,
        card=card,
    )
    size = sum(file.stat().st_size for file in output.iterdir())
    tell(f"{output}: {size / 1e6:.1f} MB, from {found.path}")
    tell(f"next: showtell caption PHOTO --model {output}")
    tell(f"for confidence and word detectors: showtell calibrate --model {output} --data DATA")
    return options.DONE
