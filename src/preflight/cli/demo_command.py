"""`preflight demo`: the real program on a small network of its own, with faults to find."""

from typing import Annotated

import typer

from preflight.cli.options import ReportFormat


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Afterwards, leave it all up until Ctrl-C.")
    ] = False,
    no_faults: Annotated[
        bool, typer.Option("--no-faults", metavar="", help="Plant no faults.")
    ] = False,
    loopback: Annotated[
        bool,
        typer.Option(
            "--loopback", metavar="", help="Use loopback addresses even if namespaces work."
        ),
    ] = False,
    output_format: Annotated[
        ReportFormat, typer.Option("--format", help="How the report is printed.")
    ] = ReportFormat.TABLE,
) -> None:
    """Start a small cluster here, plant three faults in it, and let `check` find them.

    As root, or where user namespaces are allowed, the eight nodes are network namespaces behind
    a router, and nothing of this host is touched. Elsewhere they are loopback addresses.
    Ends with 0 if the report says what was planted and nothing else, with 1 if not.

    Example: preflight demo
    """
    from preflight.cli.demonstrating import demonstrate

    raise typer.Exit(
        demonstrate(output_format.value, faults=not no_faults, loopback=loopback, keep=keep)
    )
