"""Laws of the queue."""

import threading

import pytest

from rcod.doors.work_queue import Full, Stopped, Ticket, WorkQueue
from rcod.errors import RcodError


def test_work_runs_one_after_the_other_in_the_order_it_came():
    seen: list[int] = []
    with WorkQueue(seats=20) as engine:
        tickets = [engine.submit(lambda _, n=n: seen.append(n) or n) for n in range(10)]
        assert [ticket.result.result(5) for ticket in tickets] == seen == list(range(10))


def blocked(engine: WorkQueue) -> tuple[threading.Event, Ticket[str]]:
    """Work that runs until the event is set."""
    begun, go = threading.Event(), threading.Event()

    def work(ticket: Ticket[str]) -> str:
        begun.set()
        go.wait(5)
        ticket.step(0.5)
        return "done"

    ticket = engine.submit(work)
    assert begun.wait(5)
    return go, ticket


def test_a_full_queue_says_when_to_come_back():
    with WorkQueue(seats=2) as engine:
        go, first = blocked(engine)
        second = engine.submit(lambda _: "second")
        assert engine.taken() == 2 and (engine.position(first), engine.position(second)) == (0, 1)
        with pytest.raises(
            Full, match=r"at most 2 photos may wait here.* try again in \d+ s"
        ) as full:
            engine.submit(lambda _: "third")
        assert full.value.retry_after >= 1
        with pytest.raises(Full):
            engine.check_room()
        go.set()
        assert (first.result.result(5), second.result.result(5)) == ("done", "second")
        assert engine.submit(lambda _: "third").result.result(5) == "third"
        engine.check_room()


def test_what_nobody_waits_for_is_given_up():
    with WorkQueue() as engine:
        go, first = blocked(engine)
        waiting = engine.submit(lambda _: pytest.fail("must not run"))
        waiting.stop()
        first.stop()
        go.set()
        for ticket in (first, waiting):
            with pytest.raises(Stopped):
                ticket.result.result(5)


def test_who_gives_up_while_waiting_gives_the_seat_back_at_once():
    with WorkQueue(seats=3) as engine:
        go, first = blocked(engine)
        waiting = [engine.submit(lambda _: pytest.fail("must not run")) for _ in range(2)]
        for ticket in waiting:
            ticket.stop()
            ticket.stop()
            with pytest.raises(Stopped):
                ticket.result.result(0)
        assert engine.taken() == 1 and not first.result.done()
        engine.check_room()
        last = engine.submit(lambda _: "last")
        assert (engine.position(waiting[1]), engine.position(last)) == (0, 1)
        go.set()
        assert (first.result.result(5), last.result.result(5)) == ("done", "last")


def test_errors_are_raised_where_they_are_waited_for():
    def fail(ticket: Ticket[None]) -> None:
        raise RcodError("no")

    with WorkQueue() as engine:
        with pytest.raises(RcodError, match="no"):
            engine.submit(fail).result.result(5)
        assert engine.submit(lambda _: 1).result.result(5) == 1


def test_closing_lets_what_has_a_seat_finish():
    engine = WorkQueue()
    go, first = blocked(engine)
    second = engine.submit(lambda _: "second")
    closing = threading.Thread(target=engine.close)
    closing.start()
    go.set()
    closing.join(5)
    assert (first.result.result(0), second.result.result(0)) == ("done", "second")
    with pytest.raises(Full):
        engine.submit(lambda _: "late")


def test_a_queue_needs_a_seat():
    with pytest.raises(RcodError, match="at least 1 seat, got 0"):
        WorkQueue(0)
