"""The networks that every group of cases is tried on."""

from collections.abc import Callable
from typing import Literal

from tests.conformance.namespaces import CheckedInNamespaces
from tests.memory.running import Checked

Network = Literal["memory", "namespaces"]
CheckedSomehow = Checked | CheckedInNamespaces
CheckOn = Callable[[Network, str], CheckedSomehow]
"""`check_on(network, group)`: what the check of that group said there."""
