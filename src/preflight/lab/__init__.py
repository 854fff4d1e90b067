"""A network to try things on: namespaces behind a router, with planted faults.

The network (`network`, `topology`) lives in namespaces that nothing leads out of; `faults` are
nftables rules with a name; `cluster` runs the real program on it. `demo`, the tests and the
benchmarks use the same lab.
"""
