"""`showtell serve`: captions over HTTP."""

from __future__ import annotations

import os

import click

from showtell.errors import MissingExtraError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 is any that is free.")
@click.option("--model", metavar="DIR_OR_NAME", help="A bundle's folder or name.  [default: the embedded model]")
@click.option("--threads", type=click.IntRange(0), default=0, show_default="all cores", help="CPU threads of the model.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Photos at a time at most.")
@click.option("--places", type=click.IntRange(1), default=64, show_default=True, help="Photos that may wait at once.")
@click.option("--deadline", type=click.FloatRange(1), default=30.0, show_default=True, help="Seconds a caption may take.")
@click.option(
    "--upload-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds a photo may take to arrive."
)
@click.option("--origin", "origins", multiple=True, metavar="URL", help="A site whose pages may call this one; repeatable.")
@click.option("--anonymous", is_flag=True, help="Serve other machines without a token.")
def serve(
    host: str,
    port: int,
    model: str | None,
    threads: int,
    batch_size: int,
    places: int,
    deadline: float,
    upload_timeout: float,
    origins: tuple[str, ...],
    anonymous: bool,
) -> int:
    """Serve captions over HTTP, with a page to try it in a browser.

    Where the environment has SHOWTELL_TOKEN, requests need it as bearer token. docs/service.md describes the interface.
    """
    try:
        from showtell.serve.memory import limit_heap
        from showtell.serve.server import run
        from showtell.serve.settings import ServiceSettings, check_exposure
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("showtell"):
            raise
        raise MissingExtraError("serve", "serving") from None
    from showtell.runtime import load

    settings = ServiceSettings(
        batch_size=batch_size,
        places=places,
        deadline=deadline,
        upload_timeout=upload_timeout,
        origins=origins,
        token=os.environ.get("SHOWTELL_TOKEN") or None,
    )
    check_exposure(host, settings.token, anonymous=anonymous)
    limit_heap()
    run(load(model, threads=threads), settings, host, port)
    return 0
