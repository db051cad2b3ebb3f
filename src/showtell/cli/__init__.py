"""The command line: `main` is the `showtell` command."""
