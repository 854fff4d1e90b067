"""All groups of cases: what a check must say, whatever the network is made of."""

from tests.conformance.families import FAMILIES
from tests.conformance.nodes import NODES
from tests.conformance.pairs import PAIRS
from tests.conformance.ranges import HURRIED, RANGES
from tests.conformance.vips import VIRTUAL

GROUPS = {group.setting.name: group for group in (PAIRS, NODES, FAMILIES, VIRTUAL, RANGES, HURRIED)}
EVERY_CASE = [(name, case.name) for name, group in GROUPS.items() for case in group.cases]
