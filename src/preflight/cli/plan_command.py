"""`preflight plan`: what a run would do, before it does anything."""

import sys
from typing import Annotated

import typer

from preflight.cli.options import (
    Close,
    CloseOption,
    ClusterOption,
    FromOption,
    MaxHalfOpenOption,
    OnlyOption,
    PortOption,
    RateOption,
    ReportFormat,
    SampleOption,
    ToOption,
    read_cluster,
    read_limits,
    read_narrowing,
)


def plan(
    cluster: ClusterOption,
    format_: Annotated[
        ReportFormat, typer.Option("--format", help="The plan on stdout: table or json.")
    ] = ReportFormat.TABLE,
    notice: Annotated[
        bool,
        typer.Option(
            "--notice", metavar="", help="A text to send to the security team beforehand."
        ),
    ] = False,
    only: OnlyOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    port: PortOption = None,
    rate: RateOption = "5000",
    max_half_open: MaxHalfOpenOption = 20_000,
    sample: SampleOption = None,
    close: CloseOption = Close.RESET,
) -> None:
    """Print every flow that would be probed, and what the run costs the network.

    It sends nothing to any node; names in the cluster file are resolved.

    Example: preflight plan --cluster cluster.toml --notice > notice.txt

    What less would cost: preflight plan --cluster cluster.toml --sample 100 --max-half-open 500
    """
    from preflight.check import plan_run
    from preflight.errors import ConfigError
    from preflight.render.notice import render_notice
    from preflight.render.plan_json import render_plan_json
    from preflight.render.plan_text import render_plan

    if notice and format_ is ReportFormat.JSON:
        raise ConfigError("a notice is a text; leave out --format json", path="--notice")
    loaded, profile = read_cluster(cluster)
    narrowing = read_narrowing(only, from_, to, port)
    limits = read_limits(rate, max_half_open, sample, close)
    planned = plan_run(loaded, profile, narrowing, limits=limits, deadline=None)
    if notice:
        for warning in loaded.warnings:
            print(f"preflight: {warning}", file=sys.stderr)
        text = render_notice(planned)
    else:
        text = render_plan_json(planned) if format_ is ReportFormat.JSON else render_plan(planned)
    print(text.rstrip("\n"))
