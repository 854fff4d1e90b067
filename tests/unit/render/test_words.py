from preflight.diagnosis.naming import count_role, listed
from preflight.model.report import Cause, Where
from preflight.render.words import CAUSES, WHERES, count, ports_text


def test_every_cause_and_where_has_its_own_words() -> None:
    assert set(CAUSES) == set(Cause)
    assert set(WHERES) == set(Where)
    for words in (CAUSES, WHERES):
        assert len(set(words.values())) == len(words)


def test_counts() -> None:
    assert count(1, "flow") == "1 flow"
    assert count(2768, "flow") == "2,768 flows"
    assert count_role(2, "worker") == "2 workers"
    assert count_role(3, "control-plane") == "3 control-plane nodes"
    assert count_role(2, "mongodb") == "2 mongodb nodes"


def test_lists() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b"], last="or") == "a or b"
    assert listed(list("abcdefgh"), most=4) == "a, b, c and 5 more"


def test_ports() -> None:
    assert ports_text("25080", "tcp") == "25080/tcp"
    assert ports_text("30000-30079,30081-32767", "tcp") == "30000-30079, 30081-32767/tcp"
    many = ports_text("1,3,5,7,9,11-20,30", "udp")
    assert many == "1, 3, 5, 7, 9 and 2 more ranges/udp (16 ports)"
