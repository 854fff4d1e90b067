"""`preflight key`: the two key files of a new cluster."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def key(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            readable=False,
            help="The coordinator's file; the agents' is written beside it as NAME.agent.key.",
        ),
    ] = Path("cluster.key"),
    force: Annotated[
        bool,
        typer.Option(
            "--force", metavar="", help="Overwrite; agents with the old file are cut off."
        ),
    ] = False,
) -> None:
    """Make the keys of a new cluster.

    FILE stays where `check` runs, and nowhere else. NAME.agent.key goes to every node, for
    `serve`. Both are written with mode 0600. Their paths are printed on stdout.

    Example: preflight key --out cluster.key
    """
    from preflight.net.keys import write_keys

    coordinators, agents = write_keys(out, force=force)
    print(f"{coordinators}: for `preflight check`; keep it here", file=sys.stderr)
    print(f"{agents}: copy it to every node, for `preflight serve`", file=sys.stderr)
    print(coordinators)
    print(agents)
