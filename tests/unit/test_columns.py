from hypothesis import given
from hypothesis import strategies as st

from preflight.columns import each_attempt, each_sighting, pack_attempts, pack_sightings
from preflight.model.observation import Attempt, Attempts, Sighting, Sightings

addresses = st.sampled_from(["10.0.0.1", "fd00::1"])
attempts = st.builds(
    Attempt,
    probe_id=st.sampled_from(["a0", "a1", "a2"]),
    port=st.integers(1, 3),
    local_address=addresses,
    local_port=st.integers(1, 3),
    connected=st.booleans(),
    lost_syns=st.integers(0, 1),
)
sightings = st.builds(
    Sighting,
    node=st.sampled_from(["m1", "m2"]),
    protocol=st.sampled_from(["tcp", "udp"]),
    address=addresses,
    port=st.integers(1, 3),
    source_address=addresses,
    source_port=st.integers(1, 3),
    probe_id=st.none() | st.sampled_from(["a0", "a1"]),
    answered=st.booleans(),
)


@given(st.lists(attempts))
def test_attempts_come_back_as_they_were(rows: list[Attempt]) -> None:
    assert sorted(map(repr, each_attempt(pack_attempts(rows)))) == sorted(map(repr, rows))


@given(st.lists(sightings))
def test_sightings_come_back_as_they_were(rows: list[Sighting]) -> None:
    assert sorted(map(repr, each_sighting(pack_sightings(rows)))) == sorted(map(repr, rows))


def test_what_rows_have_in_common_is_said_once() -> None:
    rows = [
        Attempt(probe_id=f"{port:032x}", port=port, local_address="10.0.0.1", local_port=port)
        for port in range(30_000, 32_768)
    ]
    (packed,) = pack_attempts(rows)
    assert (packed.local_address, len(packed.ports)) == ("10.0.0.1", 2_768)
    assert list(each_attempt((packed,))) == rows


def test_columns_are_read_as_far_as_the_shortest_goes() -> None:
    uneven = Attempts(probe_ids=("a0", "a1"), ports=(1, 2, 3), local_ports=(9,))
    assert [attempt.port for attempt in each_attempt((uneven,))] == [1]
    seen = Sightings(
        node="m1", protocol="tcp", address="10.0.0.1", source_address="10.0.0.2", answered=False,
        ports=(1, 2), source_ports=(), probe_ids=("a0",),
    )  # fmt: skip
    assert list(each_sighting((seen,))) == []
