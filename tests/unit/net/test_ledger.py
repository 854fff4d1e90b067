from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from preflight.net.ledger import Entry, Ledger
from preflight.wire.challenge import ID_BYTES

ROOM, MOST = 20, 3
# Few first bytes: most ids collide in the hash table.
ids = st.tuples(st.sampled_from([b"\0\0\0\0", b"\0\0\0\1", b"\xff" * 4]), st.integers(0, 5)).map(
    lambda parts: parts[0] + parts[1].to_bytes(ID_BYTES - 4)
)
entries = st.tuples(ids, st.integers(0, 9), st.integers(0, 9), st.integers(0, 65_535))


@given(st.lists(entries, max_size=40), st.data())
def test_it_is_a_bounded_dictionary_of_lists(
    added: list[tuple[bytes, int, int, int]], data: st.DataObject
) -> None:
    ledger = Ledger(ROOM)
    model: dict[bytes, list[Entry]] = defaultdict(list)
    for probe_id, *fields in added:
        full = sum(map(len, model.values())) >= ROOM or len(model[probe_id]) >= MOST
        number = ledger.add(probe_id, *fields, most=MOST)
        assert (number is None) == full
        if number is not None:
            answered = data.draw(st.booleans())
            if answered:
                ledger.mark_answered(number)
            listener, source, port = fields
            model[probe_id].append(Entry(listener, source, port, answered))
    assert len(ledger) == sum(map(len, model.values()))
    for probe_id in {*model, bytes(ID_BYTES)}:
        assert list(ledger.find(probe_id)) == model[probe_id]


def test_what_is_no_probe_id_has_no_entries() -> None:
    ledger = Ledger(ROOM)
    ledger.add(bytes(ID_BYTES), 0, 0, 0, most=MOST)
    assert list(ledger.find(b"")) == []
    assert list(ledger.find(bytes(ID_BYTES + 1))) == []
