"""Who is served next."""

from collections import deque

from bothways.serving.queue import FairQueue


class Texts:
    """A request of some texts, each with a cost."""

    def __init__(self, name, count, cost=1.0):
        self.name, self.units, self.cost = name, deque(range(count)), cost

    @property
    def empty(self):
        return not self.units

    def take(self):
        return f"{self.name}{self.units.popleft()}", self.cost


def everything(queue):
    found = []
    while (unit := queue.pop()) is not None:
        found.append(unit)
    return found


def test_a_single_request_is_served_in_its_order():
    queue = FairQueue()
    queue.push("client", Texts("a", 4))
    assert everything(queue) == ["a0", "a1", "a2", "a3"]
    assert queue.pop() is None


def test_a_client_with_one_text_does_not_wait_for_one_with_many():
    queue = FairQueue()
    queue.push("many", Texts("m", 10_000))
    for _ in range(100):
        queue.pop()
    queue.push("one", Texts("o", 1))
    assert "o0" in [queue.pop(), queue.pop()]


def test_clients_take_turns_by_cost_and_not_by_count():
    queue = FairQueue()
    queue.push("long", Texts("l", 100, cost=10))
    queue.push("short", Texts("s", 1000, cost=1))
    first = [queue.pop()[0] for _ in range(110)]
    assert 9 <= first.count("l") <= 11


def test_requests_of_one_client_take_turns_too():
    queue = FairQueue()
    queue.push("proxy", Texts("m", 1000))
    queue.pop()
    queue.push("proxy", Texts("o", 1))
    assert "o0" in [queue.pop(), queue.pop()]


def test_many_requests_of_one_client_are_no_more_than_one_client():
    queue = FairQueue()
    for number in range(50):
        queue.push("many", Texts(f"m{number}.", 10))
    queue.push("one", Texts("o", 10))
    first = [queue.pop()[0] for _ in range(20)]
    assert 9 <= first.count("o") <= 11


def test_a_client_that_was_away_has_saved_nothing_up():
    queue = FairQueue()
    queue.push("away", Texts("a", 1))
    queue.push("here", Texts("h", 1000))
    for _ in range(500):
        queue.pop()
    queue.push("away", Texts("a", 1000))
    first = [queue.pop()[0] for _ in range(100)]
    assert 45 <= first.count("a") <= 55


def test_what_became_empty_is_left_out():
    queue = FairQueue()
    cancelled = Texts("c", 5)
    queue.push("client", cancelled)
    queue.push("client", Texts("a", 2))
    cancelled.units.clear()
    assert everything(queue) == ["a0", "a1"]


def test_a_client_that_is_done_leaves_nothing_behind():
    queue = FairQueue()
    for number in range(100):
        queue.push(number, Texts("a", 1))
    assert len(everything(queue)) == 100
    assert not queue._clients
    assert not queue._heap
