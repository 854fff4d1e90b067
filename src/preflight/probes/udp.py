"""UDP: challenges over a connected socket, its errors read together with its data."""

from preflight.net.prober import Prober, Report, Work
from preflight.net.udp_prober import UdpProber


def probe_udp(work: Work, report: Report) -> Prober:
    """A prober for UDP orders."""
    return UdpProber(work, report)
