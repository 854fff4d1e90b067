"""A cluster in a network with its faults: everything that a check is run on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preflight.lab.cluster import ClusterNode, ClusterShape, ClusterVip
from preflight.model.plan import Family, Limits
from tests.memory.faults import Fault


@dataclass(frozen=True)
class Machine:
    """A machine behind the router; those that name the same link are neighbours.

    Without a role it is no node of the cluster: a bystander.
    """

    name: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...] = ()
    link: str | None = None
    nat_of: tuple[str, ...] = ()
    """A node behind NAT: the addresses that the cluster file gives it instead."""

    def address(self, family: Family) -> str | None:
        """Its address of that family."""
        return next((one for one in self.addresses if (":" in one) == (family == 6)), None)


@dataclass(frozen=True)
class Setting:
    """One cluster, one network, one run of `check`."""

    name: str
    machines: Sequence[Machine]
    faults: Sequence[Fault] = ()
    profile: str = "apinizer"
    """The text of a profile, or the name of a built-in one."""
    vips: Sequence[ClusterVip] = ()
    limits: Limits = field(default_factory=Limits)
    deadline: float | None = None
    icmp_limited: bool = False
    """The router sends a burst of six ICMP errors to an address, then one a second."""
    machines_by_name: dict[str, Machine] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The way in which a frozen dataclass derives a field.
        by_name = {machine.name: machine for machine in self.machines}
        object.__setattr__(self, "machines_by_name", by_name)

    def write(self, folder: Path) -> Path:
        """Write the cluster file and its profile."""
        file = folder / "cluster.toml"
        file.write_text(self.shape(folder).toml())
        return file

    def shape(self, folder: Path) -> ClusterShape:
        """What stands in the cluster file; a profile of its own is written beside it."""
        profile = self.profile
        if "\n" in profile:
            (folder / "profile.toml").write_text(profile)
            profile = "profile.toml"
        nodes = [_node(machine) for machine in self.machines if machine.roles]
        return ClusterShape(nodes, self.vips, profile)


def _node(machine: Machine) -> ClusterNode:
    if not machine.nat_of:
        return ClusterNode(machine.name, machine.addresses, machine.roles)
    control = f"{machine.addresses[0]}:10888"
    return ClusterNode(machine.name, machine.nat_of, machine.roles, control=control, nat=True)
