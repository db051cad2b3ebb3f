"""`showtell calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from showtell.cli import options
from showtell.cli.console import Console, tell
from showtell.cli.options import PATH


@click.command()
@click.option("--data", "datasets", multiple=True, required=True, type=PATH, metavar="DIR", help="A data set; repeatable.")
@options.layout
@options.model
@options.threads
@click.option("--cache", type=PATH, metavar="DIR", help="Keep features of train photos there, for the next time.")
def calibrate(datasets: tuple[Path, ...], layout: str | None, model: str | None, threads: int, cache: Path | None) -> int:
    """Fit word detectors, labels and confidence of a bundle, and store them in it.

    Detectors, which improve captions, labels and in_domain are fitted to the train photos, confidence to captions of the dev
    photos. A data set's captions are in the style of its name, if the model has that style.
    """
    from showtell import bundle
    from showtell.data import read
    from showtell.evaluation.calibrate import calibrate as run
    from showtell.files import try_place
    from showtell.runtime import load

    captioner = load(model, threads=threads)
    try_place(captioner.bundle.folder / "config.json")
    sets = [read(path, layout) for path in datasets]
    names = {dataset.name: dataset for dataset in sets}
    if len(names) < len(sets):
        raise click.UsageError("two of the data sets have one name; rename a folder")
    with Console(every=options.SILENCE) as console:
        found = run(captioner, names, cache, console.progress)
    kept = bundle.keep_confidence(captioner.bundle, found.confidence)
    assert kept.confidence is not None
    tell(f"{kept.folder}: {len(kept.confidence.labels.names)} labels")
    for name, measures in kept.confidence.parameters.dev.items():
        tell(f"{name} dev: " + ", ".join(f"{what} {value:g}" for what, value in measures.items()))
    return options.DONE
