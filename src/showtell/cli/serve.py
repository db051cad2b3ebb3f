"""`showtell serve`: captions over HTTP."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

from showtell.cli import options
from showtell.errors import MissingExtraError


@click.command()
@click.option("--host", show_default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), show_default="8000", help="0: any free port.")
@click.option("--unix-socket", type=click.Path(path_type=Path), metavar="PATH", help="Listen there instead, behind a proxy.")
@options.captioner
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Photos in the networks at once.")
@click.option("--places", type=click.IntRange(1), default=64, show_default=True, help="Photos that may wait at once.")
@click.option("--deadline", type=click.FloatRange(1), default=30.0, show_default=True, help="Seconds a caption may take.")
@click.option(
    "--upload-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds a photo may take to arrive."
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="Allowed Host header, such as a proxy's name; repeatable."
)
@click.option("--origin", "origins", multiple=True, metavar="URL", help="Allowed CORS origin; repeatable.")
@click.option("--anonymous", is_flag=True, help="Serve other machines without a token.")
@click.option("--log-format", type=click.Choice(["json", "text"]), help="Log each request, on standard error.  [default: none]")
def serve(
    host: str | None,
    port: int | None,
    unix_socket: Path | None,
    batch_size: int,
    places: int,
    deadline: float,
    upload_timeout: float,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    anonymous: bool,
    log_format: Any,
    **captioner: Any,
) -> int:
    """Serve captions over HTTP, with a page to try it in a browser.

    If SHOWTELL_TOKEN is set, requests need it as a bearer token. docs/service.md describes the interface.
    """
    # Nothing is served yet, so the process may end at once. Without a handler, process 1 of a container ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if unix_socket is not None and (host is not None or port is not None):
        raise click.UsageError("--unix-socket replaces --host and --port; give one or the other")
    try:
        from showtell.serve import logs
        from showtell.serve.listening import listen, listen_unix
        from showtell.serve.memory import limit_heap
        from showtell.serve.server import run
        from showtell.serve.settings import ServiceSettings, check_exposure
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("showtell"):
            raise
        raise MissingExtraError("serve", "serving") from None
    from showtell.captioners import open_captioner

    settings = ServiceSettings(
        batch_size=batch_size,
        places=places,
        deadline=deadline,
        upload_timeout=upload_timeout,
        hosts=(*hosts, *([host] if host else [])),
        origins=origins,
        token=os.environ.get("SHOWTELL_TOKEN") or None,
    )
    logs.configure(log_format)
    if unix_socket is not None:
        sockets = listen_unix(unix_socket)
    else:
        host = host or "127.0.0.1"
        check_exposure(host, settings.token, anonymous=anonymous)
        sockets = listen(host, 8000 if port is None else port)
    limit_heap()
    opened: Any = open_captioner(**captioner)
    run(opened, settings, sockets)
    return 0
