"""Workers last, jobs of a stream end with it, and what goes wrong in one harms no other."""

import gc
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from bothways.errors import BothwaysError
from bothways.inference.workers import Jobs, Workers


def threads() -> int:
    """How many there are, without those of predictors that are garbage."""
    gc.collect()
    return threading.active_count()


def results_of(jobs: Jobs, *calls):
    return [jobs.result(job) for job in jobs.submit(calls, more=False)]


def test_one_job_runs_on_the_thread_that_asks_and_several_on_the_same_workers():
    workers, here = Workers(2), threading.get_ident()
    before = threads()
    for _ in range(3):
        assert results_of(Jobs(workers), threading.get_ident) == [here]
    assert threading.active_count() == before
    seen = {ident for _ in range(20) for ident in results_of(Jobs(workers), *[threading.get_ident] * 4)}
    assert here not in seen
    assert len(seen) <= 2
    assert results_of(Jobs(workers), threading.get_ident) == [here]
    assert threading.active_count() == before + 2


def test_one_worker_is_the_thread_that_asks():
    before = threads()
    assert set(results_of(Jobs(Workers(1)), *[threading.get_ident] * 4)) == {threading.get_ident()}
    assert threading.active_count() == before


def test_workers_end_when_nobody_holds_them_and_keep_no_result():
    class Result:
        pass

    before = threads()
    workers = Workers(2)
    results = results_of(Jobs(workers), *[Result] * 6)
    alive = [0]
    for result in results:
        weakref.finalize(result, alive.append, 1)
    del results, result
    time.sleep(0.05)
    gc.collect()
    assert len(alive) == 7
    assert threading.active_count() == before + 2
    del workers
    assert threads() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_workers_survive_what_a_job_raises(error):
    workers = Workers(2)

    def broken():
        raise error("broken")

    for _ in range(3):
        jobs = Jobs(workers)
        with pytest.raises(error, match="broken"):
            results_of(jobs, broken, broken, int)
        jobs.close()
    assert results_of(Jobs(workers), int, int) == [0, 0]


def test_a_closed_stream_runs_nothing_more_and_others_go_on():
    workers, gate, ran = Workers(2), threading.Event(), []
    left, other = Jobs(workers), Jobs(workers)
    begun = threading.Semaphore(0)

    def block():
        begun.release()
        gate.wait()

    left.submit([block, block, *[lambda: ran.append("left")] * 50], more=False)
    theirs = other.submit([lambda: ran.append("other")] * 2, more=False)
    begun.acquire()
    begun.acquire()
    threading.Timer(0.1, gate.set).start()
    left.close()  # waits for what is running
    assert gate.is_set()
    for job in theirs:
        other.result(job)
    assert ran == ["other", "other"]


def test_several_threads_may_come_with_the_first_jobs():
    workers, before = Workers(2), threads()
    together = threading.Barrier(8)

    def call(number):
        together.wait()
        return results_of(Jobs(workers), *[lambda: number] * 5)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [[number] * 5 for number in range(8)]
    assert threading.active_count() == before + 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jobs_of_before_a_fork_are_refused_after_it_and_ending_does_not_wait():
    workers, gate = Workers(2), threading.Event()
    jobs = Jobs(workers)
    first, *_ = jobs.submit([gate.wait] * 3, more=False)
    held, forked = threading.Event(), threading.Event()

    def hold(changed):
        with changed:
            held.set()
            forked.wait()

    threading.Thread(target=hold, args=(workers._shared.changed,)).start()  # as a worker may at the fork
    held.wait()
    gc.collect()  # engines of other tests, whose ends may wait for threads that are not in the child
    child = os.fork()
    forked.set()
    if not child:
        refused = 0
        for go_on in (lambda: jobs.result(first), lambda: jobs.submit([int, int], more=False)):
            try:
                go_on()
            except BothwaysError:
                refused += 1
        jobs.close()
        del jobs, workers, go_on
        gc.collect()
        os._exit(0 if refused == 2 else 3)
    deadline = time.monotonic() + 20
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.02)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
    gate.set()
    assert done[0]
    assert os.waitstatus_to_exitcode(done[1]) == 0
