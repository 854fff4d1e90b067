from preflight.net import journal as journal_module
from preflight.net.journal import Journal, Listener, Seen

ID = b"p" * 16


def listener(port: int = 6_443) -> Listener:
    return Listener("tcp", "10.0.0.1", port)


def test_a_claimed_connection_is_no_longer_unclaimed() -> None:
    journal = Journal("m1")
    seen = journal.accept(listener(), "10.0.0.2", 40_000)
    assert [one.probe_id for one in journal.sightings([ID.hex()])] == [None]
    journal.claim(seen, ID)
    assert [one.probe_id for one in journal.sightings([ID.hex()])] == [ID.hex()]
    assert journal.sightings(()) == ()


def test_the_newest_unclaimed_are_kept_and_the_oldest_ones_port_dropped_it() -> None:
    journal = Journal("m1", max_unclaimed=2)
    first, second = listener(1), listener(2)
    journal.accept(first, "10.0.0.2", 40_001)
    journal.accept(second, "10.0.0.2", 40_002)
    journal.accept(second, "10.0.0.2", 40_003)
    assert [one.source_port for one in journal.sightings(())] == [40_002, 40_003]
    assert (first.dropped, second.dropped) == (1, 0)


def test_challenges_over_the_bound_are_dropped_and_counted() -> None:
    journal, held = Journal("m1", max_claimed=1), listener()
    journal.claim(Seen(held, "10.0.0.2", 1), ID)
    journal.claim(Seen(held, "10.0.0.2", 2), b"q" * 16)
    assert journal.sightings([(b"q" * 16).hex()]) == ()
    assert held.dropped == 1


def test_what_is_answered_is_that_one_sighting() -> None:
    journal, held = Journal("m1"), listener()
    first, second = Seen(held, "10.0.0.2", 1), Seen(held, "fd00::2", 2)
    for seen in (first, second):
        journal.claim(seen, ID)
    journal.note_answered(second)
    found = journal.sightings([ID.hex()])
    assert [(one.source_address, one.source_port, one.answered) for one in found] == [
        ("10.0.0.2", 1, False),
        ("fd00::2", 2, True),
    ]
    assert held.answered == 1


def test_what_had_no_room_may_still_be_answered() -> None:
    journal, held = Journal("m1", max_claimed=0), listener()
    seen = Seen(held, "10.0.0.2", 1)
    journal.claim(seen, ID)
    journal.note_answered(seen)
    assert (held.answered, held.dropped) == (1, 1)


def test_a_replayed_challenge_can_not_grow_without_end() -> None:
    journal, held = Journal("m1"), listener()
    for port in range(journal_module.MAX_REPEATS + 3):
        journal.claim(Seen(held, "10.0.0.2", port), ID)
    assert len(journal.sightings([ID.hex()])) == journal_module.MAX_REPEATS
    assert held.dropped == 3
