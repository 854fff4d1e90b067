"""Where a flow breaks, as far as it can be told without captured packets."""

from preflight.diagnosis.index import canonical
from preflight.diagnosis.joining import Seen
from preflight.diagnosis.judgement import Scene
from preflight.model.observation import Icmp
from preflight.model.report import Where

EVERYWHERE = (
    Where.SOURCE_EGRESS,
    Where.FORWARD_PATH,
    Where.DESTINATION_HOST,
    Where.RETURN_PATH,
    Where.SOURCE_INGRESS,
)
BEYOND_SOURCE = (Where.FORWARD_PATH, Where.DESTINATION_HOST)
_NOT_ARRIVED = (Where.SOURCE_EGRESS, Where.FORWARD_PATH, Where.DESTINATION_HOST)
_CUT_SHORT = (Where.FORWARD_PATH, Where.DESTINATION_HOST, Where.RETURN_PATH)
_NOT_RETURNED = (Where.DESTINATION_HOST, Where.RETURN_PATH, Where.SOURCE_INGRESS)

LEFT_BY_SIGHT = {
    Seen.NOTHING: _NOT_ARRIVED,
    Seen.ELSEWHERE: _NOT_ARRIVED,
    Seen.HANDSHAKE: _NOT_ARRIVED,
    Seen.CONNECTION: _NOT_ARRIVED,
    Seen.CHALLENGE: _CUT_SHORT,
    Seen.ANSWERED: _NOT_RETURNED,
}
"""The places that are left, by how far the attempts came."""


def place_of(icmp: Icmp, scene: Scene) -> Where:
    """The sender tells where an error was made: at one of the two ends, or between them."""
    sender = canonical(icmp.sender)
    if sender in scene.source_addresses:
        return Where.SOURCE_EGRESS
    if sender in scene.destination_addresses:
        return Where.DESTINATION_HOST
    return Where.FORWARD_PATH
