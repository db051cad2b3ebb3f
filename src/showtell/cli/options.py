"""Options that several commands share, exit statuses and error messages in the words of the command line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from showtell.errors import MissingExtraError
from showtell.types import ConfidenceOptions, DecodeOptions

if TYPE_CHECKING:
    from showtell.captioners import AnyCaptioner
    from showtell.data import Columns
    from showtell.image import ImageSettings

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED, READER_LEFT = 0, 1, 2, 130, 141
SILENCE = 30.0  # seconds without a message, at most, of a command that takes minutes
PATH = click.Path(path_type=Path)

model = click.option("--model", metavar="DIR_OR_NAME", help="A bundle's folder or name.  [default: the embedded model]")
threads = click.option(
    "--threads", type=click.IntRange(0), default=0, show_default="all cores", help="Processors that the model keeps busy."
)
device = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
OWN = ("prompt", "dtype", "requests", "remote_code")  # options of captioners that are no bundles
CAPTIONER = ("model", "threads", "device", *OWN)
batch_size = click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Photos at a time.")
layout = click.option("--layout", metavar="NAME", help="The data set's layout, where it is not recognised (docs/data.md).")

split_seed = click.option(
    "--split-seed", type=int, default=0, show_default=True, metavar="N", help="Draw splits with this seed where there are none."
)


def reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a data set is read."""
    for option in reversed(
        (
            layout,
            click.option("--image-column", metavar="NAME", help="Of a table: where the photo's path is."),
            click.option("--caption-column", metavar="NAME", help="Of a table: where a caption is; several with commas."),
            click.option("--split-column", metavar="NAME", help="Of a table: where train, dev or test is."),
        )
    ):
        command = option(command)
    return command


def captioner(command: Any, *, several: bool = False) -> Any:
    """The options that name a captioner, or several, and say how it runs; `open_captioner` takes them."""
    for option in reversed(
        (
            click.option(
                "--model",
                multiple=several,
                metavar="MODEL",
                help="A bundle's name or folder, hf:ORG/NAME or openai:BASE_URL#MODEL"
                + ("; repeatable, to compare." if several else ".")
                + "  [default: the embedded model]",
            ),
            click.option("--prompt", metavar="TEXT", help="With hf: and openai: the question, or the caption's beginning."),
            threads,
            click.option("--device", metavar="NAME", default="cpu", show_default=True, help="cpu, cuda, or with hf: torch's."),
            click.option("--dtype", metavar="NAME", help="With hf: of the weights, such as bfloat16.  [default: the model's]"),
            click.option("--remote-code", is_flag=True, help="With hf: run Python code that comes with the model."),
            click.option("--requests", type=click.IntRange(1), metavar="N", help="With openai: requests at once; 4."),
        )
    ):
        command = option(command)
    return command


captioners = partial(captioner, several=True)


def open_captioner(given: dict[str, Any], images: ImageSettings) -> AnyCaptioner:
    """The captioner of the options of `captioner`, which are taken out of `given`."""
    from showtell.captioners import open_captioner

    return open_captioner(images=images, **{key: given.pop(key) for key in CAPTIONER})


def columns_of(image: str | None, caption: str | None, split: str | None) -> Columns:
    from showtell.data import Columns

    return Columns(image, caption, split)


SEARCH = tuple(option.name for option in fields(DecodeOptions))  # the parameters of `search_options`


def search_options(command: Any) -> Any:
    """An option for each field of DecodeOptions; those not given are the bundle's."""
    for option in reversed(fields(DecodeOptions)):
        name, kind, about = option.name, option.metadata["kind"], option.metadata["about"]
        flag = f"--{option.metadata['flag'] or name.replace('_', '-')}"
        if name == "no_repeat_words":
            command = click.option(f"{flag}/--repeat-words", default=None, help=about)(command)
        elif kind is bool:
            command = click.option(flag, is_flag=True, default=None, help=about)(command)
        elif kind is tuple:
            about += " Repeatable, or with commas."
            command = click.option(flag, name, multiple=True, callback=_or_none, metavar="WORD", help=about)(command)
        else:
            metavar = "TEXT" if name == "start_with" else {int: "N", float: "X", str: "NAME"}[kind]
            command = click.option(flag, type=kind, metavar=metavar, help=about)(command)
    return command


def _or_none(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


def confidence(command: Any) -> Any:
    """The options for doubtful captions and labels; `confidence_options` takes them."""
    for option in reversed(
        (
            click.option("--labels", is_flag=True, help="Add the five likeliest labels, with probabilities."),
            click.option(
                "--min-confidence",
                type=click.FloatRange(0, 1),
                default=0.0,
                metavar="P",
                help="Give no caption of a lower confidence; the record's status is then doubtful.",
            ),
            click.option("--no-fallback", is_flag=True, help="Keep doubtful captions where a label is sure."),
        )
    ):
        command = option(command)
    return command


def confidence_options(given: dict[str, Any]) -> ConfidenceOptions:
    """The options of `confidence`."""
    labels, least, keep = (given.get(name) for name in ("labels", "min_confidence", "no_fallback"))
    return ConfidenceOptions(labels=bool(labels), min_confidence=least or 0.0, fallback=not keep)


def with_flags(message: str, root: click.Group | None = None, *, names: bool = False) -> str:
    """Returns an error in the words of the command line: `sample=True` becomes `--sample`; with `names`, so does `beam_size`.

    `root` holds the commands whose options are known; by default that of the running command.
    """
    commands: list[click.Command] = [root or click.get_current_context().find_root().command]
    flags: dict[str | None, str] = {}
    for command in commands:
        if isinstance(command, click.Group):
            commands.extend(command.commands.values())
        flags |= {option.name: max(option.opts, key=len) for option in command.params if isinstance(option, click.Option)}
    pattern = r"\b(\w+)=True\b" + (r"|\b(\w+)=(?=[ ,])|\b([a-z]+(?:_[a-z]+)+)\b|^(\w+)(?= is )" if names else "")
    return re.sub(pattern, lambda match: flags.get(match[match.lastindex or 0], match[0]), message)


@contextlib.contextmanager
def needs(extra: str, feature: str) -> Iterator[None]:
    """Turns a missing package into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("showtell"):
            raise
        raise MissingExtraError(extra, feature) from None
