"""`showtell push`."""

from __future__ import annotations

import click

from showtell.cli.console import tell
from showtell.cli.options import DONE


@click.command()
@click.argument("bundle", metavar="BUNDLE")
@click.argument("model", metavar="ORG/NAME")
@click.option("--private", is_flag=True, help="Only for you and your organisation.")
@click.option("--message", default="Upload a showtell bundle", show_default=True, help="Of the commit.")
def push(bundle: str, model: str, private: bool, message: str) -> int:
    """Upload a bundle, a name or folder, to the Hugging Face Hub.

    The token is $HF_TOKEN or that of `hf auth login`. Others then use the model with --model hub:ORG/NAME.
    """
    from showtell.bundle import Bundle
    from showtell.captioners.hub import push as run

    address = run(Bundle.find(bundle), model.removeprefix("hub:"), private=private, message=message)
    tell(f"{model}: {address}")
    tell(f"next: showtell caption PHOTO --model hub:{model.removeprefix('hub:')}")
    return DONE
