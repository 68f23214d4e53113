"""Many requests, one engine: answers are those of the predictor, and nobody waits for another's mistake."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from bothways.serving.batcher import DEFECT, Batcher, ClosedError, QueueFullError
from bothways.tasks.task import Example
from tests.serving.fake import POISON, TOKENIZER, FakeEngine, fake_predictor

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "nine", "small", "dogs", "ran", "around", "an", "old", "house"]


def texts(count, longest=30, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


@contextmanager
def batching(predictor, **settings):
    batcher = Batcher(predictor.engine, predictor.tokenizer, **settings)
    try:
        yield batcher
    finally:
        predictor.engine.gate.set()
        batcher.close()


def submit(batcher, predictor, some, client=None):
    """A request; `done` of the work is set when it is computed."""
    done = threading.Event()
    work = batcher.submit(predictor.task, [Example((text,)) for text in some], done.set, client=client)
    if work.over:
        done.set()
    return work, done


def vectors(work):
    return [prediction.vector for prediction in work.predictions]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_answers_are_those_of_the_predictor(workers):
    predictor = fake_predictor(workers=workers)
    some = [*texts(200), " ".join(texts(20, seed=1))]  # the last is read in many windows
    expected = predictor(some)
    with batching(predictor) as batcher:
        requests = [submit(batcher, predictor, some[start : start + 7]) for start in range(0, len(some), 7)]
        for _, done in requests:
            assert done.wait(30)
    found = [one for work, _ in requests for one in work.predictions]
    assert [one.windows for one in found] == [one.windows for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, rtol=1e-6)


def test_a_batch_holds_no_more_tokens_than_the_engine_wants():
    predictor = fake_predictor(max_tokens=64)
    with batching(predictor) as batcher:
        _, done = submit(batcher, predictor, texts(300, longest=20))
        assert done.wait(30)
    padded = [batch.lengths[0] * len(batch.lengths) for batch in predictor.engine.batches]
    assert max(padded) <= 64
    assert len(padded) < 150  # they do hold several


def test_requests_of_different_clients_share_batches():
    predictor = fake_predictor(workers=1, max_tokens=128)
    predictor.engine.gate.clear()
    with batching(predictor) as batcher:
        requests = [submit(batcher, predictor, ["a cat"], client=number) for number in range(20)]
        predictor.engine.gate.set()
        for _, done in requests:
            assert done.wait(30)
    assert len(predictor.engine.batches) <= 4


def test_long_windows_are_computed_alone_where_the_engine_wants_it():
    predictor = fake_predictor(workers=1, max_tokens=96, unbatched_from=20)
    predictor.engine.gate.clear()
    with batching(predictor) as batcher:
        _, first = submit(batcher, predictor, ["a"])
        _, done = submit(batcher, predictor, [" ".join(["cat"] * size) for size in (25, 3, 26, 4, 27)])
        predictor.engine.gate.set()
        assert first.wait(30)
        assert done.wait(30)
    assert all(len(batch.lengths) == 1 for batch in predictor.engine.batches if batch.lengths[0] >= 20)


def test_batches_hold_windows_of_like_length():
    predictor = fake_predictor(workers=1, max_tokens=60)
    predictor.engine.gate.clear()
    with batching(predictor) as batcher:
        _, first = submit(batcher, predictor, ["a"])
        _, done = submit(batcher, predictor, ["cat", " ".join(["cat"] * 18)] * 3)
        predictor.engine.gate.set()
        assert first.wait(30)
        assert done.wait(30)
    assert all(batch.lengths[0] == batch.lengths[-1] for batch in predictor.engine.batches)


def test_a_text_that_cannot_be_computed_fails_alone():
    predictor = fake_predictor()
    with batching(predictor) as batcher:
        predictor.engine.gate.clear()
        requests = [submit(batcher, predictor, [f"a cat {number}"]) for number in range(10)]
        work, done = submit(batcher, predictor, ["before", f"a {POISON} here", "after"])
        predictor.engine.gate.set()
        assert done.wait(30)
        for other, event in requests:
            assert event.wait(30)
            assert other.predictions[0].error is None
            assert not other.defects
    assert [one.error for one in work.predictions] == [None, DEFECT, None]
    assert work.defects == {1}


def test_a_defect_is_logged_without_the_text(caplog):
    predictor = fake_predictor()
    with batching(predictor) as batcher:
        _, done = submit(batcher, predictor, [POISON])
        assert done.wait(30)
    (record,) = caplog.records
    assert record.fields["error"] == "ZeroDivisionError"
    assert "fake.py" in record.fields["where"]
    assert "the text itself" not in str(vars(record))


def test_a_task_that_fails_to_tokenize_one_text_answers_the_others(monkeypatch):
    predictor = fake_predictor(workers=1)
    encode = type(predictor.task).encode

    def choosy(task, examples, tokenizer):
        if any("bad" in example.texts[0] for example in examples):
            raise ValueError("bad")
        return encode(task, examples, tokenizer)

    monkeypatch.setattr(type(predictor.task), "encode", choosy)
    with batching(predictor) as batcher:
        work, done = submit(batcher, predictor, ["one", "bad", "two"])
        assert done.wait(30)
    assert [one.error for one in work.predictions] == [None, DEFECT, None]


@pytest.mark.parametrize("method", ["reduce", "decode"])
def test_a_task_that_fails_on_what_was_computed_fails_one_text(monkeypatch, method):
    predictor = fake_predictor(workers=1)
    original = getattr(type(predictor.task), method)
    calls = []

    def once(*given):
        calls.append(given)
        if len(calls) == 1:
            raise ValueError("the first")
        return original(*given)

    monkeypatch.setattr(type(predictor.task), method, once)
    with batching(predictor) as batcher:
        work, done = submit(batcher, predictor, ["one", "two", "three"])
        assert done.wait(30)
    assert len(work.defects) == 1


def test_an_empty_text_has_an_error_and_costs_nothing():
    predictor = fake_predictor()
    with batching(predictor) as batcher:
        work, _ = submit(batcher, predictor, ["", "  "])
        assert work.over
        assert [one.error for one in work.predictions] == ["the text is empty"] * 2
        work, done = submit(batcher, predictor, ["", "a cat"])
        assert done.wait(30)
        assert [one.error for one in work.predictions] == ["the text is empty", None]
    assert not batcher.waiting


def test_a_full_queue_refuses_a_request_and_says_when_to_come_again():
    predictor = fake_predictor(workers=1)
    predictor.engine.gate.clear()
    with batching(predictor, room=10) as batcher:
        submit(batcher, predictor, texts(5))
        with pytest.raises(QueueFullError, match="5 texts are waiting; try again in") as refused:
            submit(batcher, predictor, texts(1))
        assert 1 <= refused.value.retry_after <= 60
        assert batcher.waiting == 5


def test_one_client_cannot_fill_the_queue_for_others():
    predictor = fake_predictor(workers=1)
    predictor.engine.gate.clear()
    with batching(predictor, room=100) as batcher:
        for _ in range(50):
            submit(batcher, predictor, ["a"], client="many")
        with pytest.raises(QueueFullError):
            submit(batcher, predictor, ["a"], client="many")
        for client in "abc":
            submit(batcher, predictor, ["a"], client=client)


def test_a_client_with_one_text_does_not_wait_for_one_with_thousands():
    predictor = fake_predictor(workers=1, max_tokens=64)
    predictor.engine.gate.clear()
    with batching(predictor, room=20_000) as batcher:
        _, many = submit(batcher, predictor, texts(8000), client="many")
        _, one = submit(batcher, predictor, ["a cat"], client="one")
        predictor.engine.gate.set()
        assert one.wait(30)
        assert not many.is_set()
        assert batcher.waiting > 7000
        assert many.wait(60)


def test_a_text_of_many_windows_does_not_hold_up_others():
    predictor = fake_predictor(workers=1, max_tokens=64)
    predictor.engine.gate.clear()
    with batching(predictor) as batcher:
        _, long = submit(batcher, predictor, [" ".join(["cat"] * 30_000)], client="long")
        while not predictor.engine.batches:
            time.sleep(0.01)
        _, one = submit(batcher, predictor, ["a cat"], client="one")
        predictor.engine.gate.set()
        assert one.wait(30)
        assert not long.is_set()
        assert long.wait(60)
    assert batcher.waiting == 0


def test_a_cancelled_request_leaves_the_queue():
    predictor = fake_predictor(workers=1, max_tokens=64)
    predictor.engine.gate.clear()
    with batching(predictor, room=1000) as batcher:
        _, first = submit(batcher, predictor, ["a"])
        work, done = submit(batcher, predictor, texts(400))
        assert batcher.waiting == 401
        batcher.cancel(work)
        batcher.cancel(work)
        assert batcher.waiting == 1
        _, last = submit(batcher, predictor, ["the last"])
        predictor.engine.gate.set()
        assert first.wait(30)
        assert last.wait(30)
    assert not done.is_set()
    assert len(predictor.engine.batches) < 10


def test_a_request_that_is_cancelled_while_it_is_computed_is_not_reported():
    predictor = fake_predictor(workers=1)
    predictor.engine.gate.clear()
    with batching(predictor) as batcher:
        work, done = submit(batcher, predictor, ["a"])
        while not predictor.engine.batches:
            time.sleep(0.01)
        batcher.cancel(work)
        predictor.engine.gate.set()
        _, other = submit(batcher, predictor, ["b"])
        assert other.wait(30)
    assert not done.is_set()
    assert batcher.waiting == 0


def test_closing_finishes_what_was_submitted_and_takes_nothing_more():
    predictor = fake_predictor()
    batcher = Batcher(predictor.engine, predictor.tokenizer)
    _, done = submit(batcher, predictor, texts(500))
    batcher.close()
    assert done.is_set()
    with pytest.raises(ClosedError):
        submit(batcher, predictor, ["late"])
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_closing_does_not_wait_for_what_is_cancelled():
    predictor = fake_predictor(workers=2)
    batcher = Batcher(predictor.engine, predictor.tokenizer)
    predictor.engine.gate.clear()
    works = [submit(batcher, predictor, texts(50))[0] for _ in range(3)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    for work in works:
        batcher.cancel(work)
    predictor.engine.gate.set()
    closing.join(30)
    assert not closing.is_alive()


def test_counts_tokens_for_each_request_and_each_batch():
    predictor, seen = fake_predictor(), []
    with batching(predictor, on_batch=lambda tokens, windows: seen.append((tokens, windows))) as batcher:
        work, done = submit(batcher, predictor, ["a cat", "cat"])
        assert done.wait(30)
    assert work.tokens == 4 + 3
    assert sum(tokens for tokens, _ in seen) == 7
    assert sum(windows for _, windows in seen) == 2


def test_many_threads_at_once():
    predictor = fake_predictor(workers=3, max_tokens=48)
    some = texts(60, seed=3)
    expected = [one.vector for one in predictor(some)]
    failures = []

    def client(number):
        rng = random.Random(number)
        for _ in range(30):
            places = rng.sample(range(len(some)), rng.randint(1, 5))
            work, done = submit(batcher, predictor, [some[place] for place in places], client=number % 4)
            if rng.random() < 0.2:
                batcher.cancel(work)
            elif not done.wait(30) or not all(
                np.allclose(own, expected[place]) for own, place in zip(vectors(work), places, strict=True)
            ):
                failures.append(number)

    with batching(predictor) as batcher:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
    assert batcher.waiting == 0
    assert not batcher._of_client


def test_the_fake_is_what_it_says():
    assert isinstance(fake_predictor().engine, FakeEngine)
    assert TOKENIZER.encode(POISON).ids.tolist()[1:-1]
