import asyncio
import socket
from contextlib import AsyncExitStack, closing

import pytest

from preflight.columns import each_attempt
from preflight.model.observation import Failure, Icmp, Operation
from preflight.model.plan import BRIEF_PATIENCE, ProbeOrder
from preflight.net.limits import raise_descriptor_limit
from preflight.ports import count_ports, each_port, from_ports
from preflight.wire.challenge import SMALL_SIZE
from tests.unit.probes.answering_side import (
    ADDRESS,
    INSTANCE,
    Conversation,
    FullBacklog,
    answering,
    close_at_once,
    count_descriptors,
    free_port,
    free_ports,
    greet_with,
    make_order,
    make_probe,
    probe,
    probe_one,
    reset_at_once,
    share,
    stay_silent,
    tcp_listener,
)


@pytest.mark.parametrize("address", [ADDRESS, "::1"])
async def test_a_valid_answer_proves_the_port(address: str) -> None:
    async with tcp_listener(answering(), address) as port:
        seen = await probe_one(make_order("tcp", port, address=address))
    assert seen.failure is None
    assert seen.ports == ((port, port),)
    assert (seen.attempts, seen.answered, seen.retransmits) == (1, 1, 0)
    assert (seen.answered_by, seen.answered_instance) == ("m1", INSTANCE.hex())
    assert seen.answered_port is None
    assert seen.observed_source == seen.local_address
    assert seen.operation is Operation.RECEIVE
    assert seen.size == SMALL_SIZE
    assert seen.rtt_ms is not None
    assert seen.unanswered == ()


async def test_an_answer_in_pieces_is_put_together() -> None:
    async with tcp_listener(answering(pieces=7)) as port:
        seen = await probe_one(make_order("tcp", port))
    assert seen.failure is None


async def test_who_answered_and_on_which_port_is_told_not_judged() -> None:
    conversation = answering(lambda answer: answer._replace(node="m2", port=4711))
    async with tcp_listener(conversation) as port:
        seen = await probe_one(make_order("tcp", port))
    assert seen.failure is None
    assert seen.answered_by == "m2"
    assert seen.answered_port == 4711


@pytest.mark.parametrize(
    "conversation",
    [
        answering(lambda answer: answer._replace(nonce=bytes(16))),
        answering(lambda answer: answer._replace(probe_id=bytes(16))),
        answering(lambda answer: answer._replace(run_id=bytes(16))),
        answering(key=b"x" * 32),
        greet_with(b"SSH-2.0-other\r\n"),
        greet_with(b"\xf1\x9ePF\x09rubbish behind our magic"),
    ],
)
async def test_anything_but_our_answer_is_foreign(conversation: Conversation) -> None:
    async with tcp_listener(conversation) as port:
        seen = await probe_one(make_order("tcp", port))
    assert seen.failure is Failure.FOREIGN_ANSWER
    assert seen.answered == 0
    assert len(bytes.fromhex(seen.first_bytes)) in range(1, 17)
    (attempt,) = each_attempt(seen.unanswered)
    assert attempt.connected
    assert attempt.local_port > 0


async def test_the_first_bytes_of_a_foreign_answer_are_kept() -> None:
    async with tcp_listener(greet_with(b"SSH-2.0-other\r\n and more")) as port:
        seen = await probe_one(make_order("tcp", port))
    assert bytes.fromhex(seen.first_bytes) == b"SSH-2.0-other\r\n "


@pytest.mark.parametrize(
    ("conversation", "errno"), [(close_at_once, None), (reset_at_once, "ECONNRESET")]
)
async def test_a_closing_listener_is_tried_three_times(
    conversation: Conversation, errno: str | None
) -> None:
    async with tcp_listener(conversation) as port:
        seen = await probe_one(make_order("tcp", port), share(patience=4.0))
    assert seen.failure is Failure.CLOSED_AFTER_CONNECT
    assert seen.errno == errno
    assert seen.attempts == 3
    assert len({attempt.probe_id for attempt in each_attempt(seen.unanswered)}) == 3


async def test_silence_after_the_handshake_is_told_apart_from_no_answer() -> None:
    async with tcp_listener(stay_silent) as port:
        seen = await probe_one(make_order("tcp", port), share(patience=1.3))
    assert seen.failure is Failure.SILENT_AFTER_CONNECT
    assert seen.attempts == 2
    assert len(list(each_attempt(seen.unanswered))) == 2


async def test_the_second_connection_may_still_prove_the_port() -> None:
    async with tcp_listener(answering(silent_connections=1)) as port:
        seen = await probe_one(make_order("tcp", port), share(patience=3.0))
    assert seen.failure is None
    assert (seen.attempts, seen.answered, seen.retransmits) == (2, 1, 0)


async def test_a_closed_port_is_reset_at_once() -> None:
    seen = await probe_one(make_order("tcp", free_port()), share(patience=60.0, deadline=60.0))
    assert seen.failure is Failure.RESET
    assert seen.errno == "ECONNREFUSED"
    assert seen.icmp is None
    assert seen.attempts == 1


async def test_silence_lasts_as_long_as_the_patience_and_gets_further_syns() -> None:
    with closing(FullBacklog()) as silent:
        seen = await probe_one(make_order("tcp", silent.port), share(patience=1.6))
    assert seen.failure is Failure.NO_ANSWER
    assert seen.operation is Operation.CONNECT
    assert seen.attempts in (2, 3)
    assert (seen.answered, seen.retransmits, seen.unanswered) == (0, 0, ())


async def test_when_the_first_connections_are_silent_the_rest_is_not_tried() -> None:
    with closing(FullBacklog()) as silent:
        order = make_order("tcp", silent.port, connections=40)
        seen = await probe_one(order, share(patience=1.0))
    assert seen.failure is Failure.NO_ANSWER
    # Four connections, each with the few further SYNs that its patience has room for.
    assert seen.attempts <= 4 * 4


async def test_a_port_of_another_program_is_connected_and_sent_nothing() -> None:
    received = asyncio.get_running_loop().create_future()

    async def listen_closely(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            received.set_result(await reader.read())
        except ConnectionResetError:
            received.set_result(b"")

    async with tcp_listener(listen_closely) as port:
        order = ProbeOrder(probe=make_probe("tcp", port), connect_only=((port, port),))
        seen = await probe_one(order)
        assert seen.failure is Failure.CONNECTED_ONLY
        assert seen.operation is Operation.CONNECT
        assert await asyncio.wait_for(received, 5) == b""


async def test_the_full_size_challenge_is_an_outcome_of_its_own() -> None:
    async with tcp_listener(answering()) as port:
        outcomes, finished = await probe([make_order("tcp", port, full_size_port=port)])
    assert {(o.size, o.failure, o.answered) for o in outcomes} == {
        (SMALL_SIZE, None, 1),
        (8_192, None, 1),
    }
    assert finished[-1] == 1


async def test_full_size_moves_to_a_port_that_was_proven() -> None:
    closed = free_port()
    async with tcp_listener(answering()) as port:
        outcomes, _ = await probe([make_order("tcp", port, closed, full_size_port=closed)])
    full = [o for o in outcomes if o.size == 8_192]
    assert [(o.ports, o.failure) for o in full] == [(((port, port),), None)]


async def test_full_size_is_left_out_where_nothing_was_proven() -> None:
    closed = free_port()
    outcomes, _ = await probe([make_order("tcp", closed, full_size_port=closed)])
    assert [o.size for o in outcomes] == [SMALL_SIZE]


async def test_full_size_fails_alone() -> None:
    async def answer_small(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(SMALL_SIZE)
        if int.from_bytes(data[6:8], "big") > SMALL_SIZE:
            return
        again = asyncio.StreamReader()
        again.feed_data(data)
        await answering()(again, writer)

    async with tcp_listener(answer_small) as port:
        outcomes, _ = await probe(
            [make_order("tcp", port, full_size_port=port)], share(patience=2.0)
        )
    assert {(o.size, o.failure, o.attempts) for o in outcomes} == {
        (SMALL_SIZE, None, 1),
        (8_192, Failure.CLOSED_AFTER_CONNECT, 3),
    }


async def test_several_connections_are_counted_by_who_answered() -> None:
    turn = 0

    async def balance(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        node = f"m{turn % 3}"
        await answering(lambda answer: answer._replace(node=node))(reader, writer)

    async with tcp_listener(balance) as port:
        outcomes, finished = await probe([make_order("tcp", port, connections=12)])
    assert {(o.answered_by, o.answered) for o in outcomes} == {("m0", 4), ("m1", 4), ("m2", 4)}
    assert all(o.ports == ((port, port),) for o in outcomes)
    assert finished[-1] == 1


async def test_when_the_first_connections_fail_the_rest_is_not_tried() -> None:
    seen = await probe_one(make_order("tcp", free_port(), connections=30))
    assert seen.failure is Failure.RESET
    assert seen.attempts == 4


async def test_ports_with_one_result_are_one_outcome() -> None:
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(tcp_listener(answering())) for _ in range(30)]
        closed = free_port()
        outcomes, finished = await probe([make_order("tcp", closed, *ports)])
    assert {(o.failure, o.ports) for o in outcomes} == {
        (None, from_ports(ports)),
        (Failure.RESET, ((closed, closed),)),
    }
    assert finished[-1] == 31
    assert finished == sorted(finished)


async def test_what_the_deadline_leaves_untried_is_skipped() -> None:
    ports = free_ports(500)
    order = make_order("tcp", *ports)
    outcomes, finished = await probe([order], share(rate=100.0, deadline=0.5))
    counts = {o.failure: count_ports(o.ports) for o in outcomes}
    assert set(counts) == {Failure.RESET, Failure.SKIPPED}
    assert counts[Failure.RESET] <= 70
    covered = sorted(port for o in outcomes for port in each_port(o.ports))
    assert covered == ports
    assert finished[-1] == 500


async def test_a_silent_port_cut_short_by_the_deadline_is_skipped_not_silent() -> None:
    with closing(FullBacklog()) as silent:
        seen = await probe_one(make_order("tcp", silent.port), share(patience=4.0, deadline=0.6))
    assert seen.failure is Failure.SKIPPED
    assert seen.attempts > 0


async def test_a_listener_that_stands_still_keeps_the_window_from_nobody() -> None:
    raise_descriptor_limit()
    # The kernel completes the handshakes; nobody ever accepts.
    stalled = [socket.create_server((ADDRESS, 0), backlog=8) for _ in range(900)]
    try:
        ports = [one.getsockname()[1] for one in stalled]
        outcomes, _ = await probe([make_order("tcp", *ports)], share(patience=0.6, deadline=2.0))
    finally:
        for one in stalled:
            one.close()
    assert {outcome.failure for outcome in outcomes} == {Failure.SILENT_AFTER_CONNECT}


async def test_unanswered_syns_are_bounded() -> None:
    with closing(FullBacklog()) as first, closing(FullBacklog()) as second:
        closed = free_port()
        order = make_order("tcp", first.port, second.port)
        other = make_order("tcp", closed, id=2)
        outcomes, _ = await probe([order, other], share(max_half_open=1))
    by_failure = {o.failure: o for o in outcomes}
    assert by_failure[Failure.RESET].probe == 2
    assert by_failure[Failure.NO_ANSWER].attempts == 1
    assert count_ports(by_failure[Failure.SKIPPED].ports) == 1


async def test_further_syns_are_within_the_bound_too() -> None:
    with closing(FullBacklog()) as first, closing(FullBacklog()) as second:
        order = make_order("tcp", first.port, second.port)
        seen = await probe_one(order, share(max_half_open=5, patience=2.5))
    assert seen.failure is Failure.NO_ANSWER
    assert seen.attempts == 5  # without the bound each had half a dozen


async def test_further_connections_after_one_that_was_made_are_within_the_bound_too() -> None:
    async with tcp_listener(close_at_once) as port:
        seen = await probe_one(make_order("tcp", port), share(max_half_open=1))
    assert seen.failure is Failure.CLOSED_AFTER_CONNECT
    assert seen.attempts == 2  # without the bound three


@pytest.mark.parametrize(("bound", "skipped"), [(6, 0), (5, 1)])
async def test_second_looks_share_one_bound(bound: int, skipped: int) -> None:
    # Each of the three is tried twice: silence may have been for want of quiet.
    with closing(FullBacklog()) as silent:
        orders = [
            ProbeOrder(probe=make_probe("tcp", silent.port, id=n), second_look=True, lane=str(n))
            for n in range(3)
        ]
        outcomes, _ = await probe(orders, share(max_half_open=bound))
    assert [o.failure for o in outcomes].count(Failure.SKIPPED) == skipped
    assert sum(o.failure is Failure.NO_ANSWER for o in outcomes) == 3 - skipped


async def test_ports_that_were_never_tried_have_the_pace_before_retries() -> None:
    async with AsyncExitStack() as stack:
        silent = [stack.enter_context(closing(FullBacklog())).port for _ in range(3)]
        orders = [
            make_order("tcp", *silent),
            make_order("tcp", *free_ports(25), id=2),
        ]
        outcomes, _ = await probe(orders, share(rate=12.0, patience=2.0))
    assert {(o.probe, o.failure) for o in outcomes} == {
        (1, Failure.NO_ANSWER),
        (2, Failure.RESET),
    }
    # Of 28 first tries in 2.3 s, each eighth lets one further SYN pass.
    assert 3 < sum(o.attempts for o in outcomes if o.probe == 1) <= 3 + 3


async def test_a_second_look_tries_once_and_is_marked() -> None:
    with closing(FullBacklog()) as silent:
        order = ProbeOrder(probe=make_probe("tcp", silent.port), second_look=True)
        seen = await probe_one(order)
    assert seen.failure is Failure.NO_ANSWER
    assert seen.attempts == 1
    assert seen.second_look


async def test_a_brief_look_proves_a_port_that_works_by_now() -> None:
    async with tcp_listener(answering()) as port:
        order = ProbeOrder(probe=make_probe("tcp", port), second_look=True, brief=True)
        seen = await probe_one(order)
    assert (seen.failure, seen.second_look) == (None, True)


async def test_a_brief_look_at_a_silent_port_is_brief() -> None:
    with closing(FullBacklog()) as silent:
        order = ProbeOrder(probe=make_probe("tcp", silent.port), second_look=True, brief=True)
        seen = await probe_one(order)
    assert (seen.failure, seen.attempts) == (Failure.NO_ANSWER, 1)
    assert seen.waited is not None
    assert BRIEF_PATIENCE - 0.01 <= seen.waited < 3


async def test_second_looks_follow_each_other_and_end_with_the_deadline() -> None:
    a, b, c, d = free_ports(4)
    first = ProbeOrder(probe=make_probe("tcp", a, b), second_look=True)
    second = ProbeOrder(probe=make_probe("tcp", c, d, id=2), second_look=True)
    outcomes, finished = await probe([first, second], share(deadline=3.2))
    found = {(o.probe, o.failure, port) for o in outcomes for port in each_port(o.ports)}
    assert found == {
        (1, Failure.RESET, a),
        (1, Failure.RESET, b),
        (2, Failure.SKIPPED, c),
        (2, Failure.SKIPPED, d),
    }
    assert finished[-1] == 4


async def test_second_looks_of_different_lanes_run_side_by_side() -> None:
    orders = [
        ProbeOrder(probe=make_probe("tcp", port, id=n), second_look=True, lane=str(n))
        for n, port in enumerate(free_ports(3))
    ]
    outcomes, _ = await probe(orders, share(deadline=1.5))
    assert {(o.probe, o.failure) for o in outcomes} == {(n, Failure.RESET) for n in range(3)}


async def test_cancellation_closes_every_socket_at_once() -> None:
    before = count_descriptors()
    with closing(FullBacklog()) as silent:
        held = count_descriptors()
        order = make_order("tcp", silent.port, connections=4)
        running = asyncio.create_task(probe([order], share(patience=60.0, deadline=60.0)))
        while count_descriptors() < held + 4:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 2)
        assert count_descriptors() <= held
    assert count_descriptors() <= before


async def test_an_address_on_a_missing_interface_has_no_route() -> None:
    seen = await probe_one(make_order("tcp", 80, address="fe80::1%nosuchif0"))
    assert seen.failure is Failure.NO_ROUTE


async def test_no_orders_no_outcomes() -> None:
    assert await probe([]) == ([], [0])


def test_icmp_is_hashable_and_so_can_be_grouped() -> None:
    assert len({Icmp(4, 3, 13, "10.0.0.1"), Icmp(4, 3, 13, "10.0.0.1")}) == 1
