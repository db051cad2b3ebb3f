"""The command line. Each command imports its modules when it runs, so that captioning never loads torch.

Exit status 0: all done; 1: done, but some photos failed, which are named on standard error; 2: wrong usage, nothing done, or
the output cannot be written; 130: interrupted; 141: the reader of the output is gone. Captions go to standard output, all else
to standard error.
"""

from __future__ import annotations

import io
import logging
import sys

import click

from showtell.cli.alt import alt
from showtell.cli.calibrate import calibrate
from showtell.cli.caption import caption, explain
from showtell.cli.console import Group, show_warnings, tell
from showtell.cli.data import data
from showtell.cli.evaluate import evaluate
from showtell.cli.options import INTERRUPTED, NOTHING_DONE, READER_LEFT, with_flags
from showtell.cli.push import push
from showtell.cli.search import search
from showtell.cli.serve import serve
from showtell.cli.train import average, export, train
from showtell.errors import OptionError, ShowtellError
from showtell.io.streams import ReaderLeftError, drop_output, open_streams


def main() -> None:
    """Entry point of the `showtell` command."""
    open_streams()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # a broken photo is reported once, by its error
    show_warnings()
    try:
        status = cli.main(prog_name="showtell", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        for line in shown.getvalue().splitlines():
            tell(line)
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        status = INTERRUPTED
    except ReaderLeftError:
        status = READER_LEFT
    except ShowtellError as error:
        tell(f"showtell: {with_flags(str(error), cli, names=isinstance(error, OptionError))}")
        status = NOTHING_DONE
    drop_output()
    sys.exit(status)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="showtell")
def cli() -> None:
    """Caption images, one or millions, with the model in this package or your own."""


for _command in (caption, search, alt, explain, evaluate, calibrate, train, average, export, push, data, serve):
    cli.add_command(_command)
