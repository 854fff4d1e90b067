"""Files that users write -> `Cluster` and `Profile`. Reads files, and touches no network."""

from preflight.config.addresses import Resolve, literal_addresses_only
from preflight.config.cluster import MAX_NODE_NAME, load_cluster
from preflight.config.profiles import builtin_profiles, load_profile

__all__ = [
    "MAX_NODE_NAME",
    "Resolve",
    "builtin_profiles",
    "literal_addresses_only",
    "load_cluster",
    "load_profile",
]
