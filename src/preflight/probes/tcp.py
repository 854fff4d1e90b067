"""TCP: connect, challenge, and read the answer."""

from preflight.net.prober import Prober, Report, Work
from preflight.net.tcp_prober import TcpProber


def probe_tcp(work: Work, report: Report) -> Prober:
    """A prober for TCP orders."""
    return TcpProber(work, report)
