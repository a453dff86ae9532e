"""Claims and workers: no task is done twice, a dead worker's is taken over, a failed one is reported and tried again."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from iadjax.experiment.sweep import claims
from iadjax.experiment.sweep.worker import Outcome, Task, failures, finished, work


def test_one_of_many_gets_a_claim(tmp_path):
    got = []
    start = threading.Barrier(8)

    def run(number):
        start.wait()
        for job in range(30):
            if claims.take(tmp_path / f"jobs/{job}", 60):
                got.append((job, number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(job for job, _ in got) == list(range(30))


def test_a_released_job_is_free_and_a_done_one_leaves_nothing(tmp_path):
    job = tmp_path / "job"
    first = claims.take(job, 60)
    assert claims.take(job, 60) is None and not claims.lost(first)
    claims.release(first, done=False)
    second = claims.take(job, 60)
    assert second.number == first.number + 1 and claims.lost(first)
    claims.release(second, done=True)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_claim_is_taken_over_by_one(tmp_path):
    job = tmp_path / "job"
    first = claims.take(job, 60)
    about = json.loads(first.file.read_text())
    # of another machine, whose processes cannot be seen from here
    first.file.write_text(json.dumps(about | {"machine": "elsewhere", "pid": 1}))
    assert claims.take(job, 60) is None
    os.utime(first.file, (time.time() - 61,) * 2)
    second = claims.take(job, 60)
    assert second is not None and claims.lost(first) and claims.take(job, 60) is None
    claims.touch(first)
    assert claims.take(job, 60) is None and not claims.lost(second)


def test_a_claim_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    if claims._machine() is None:
        pytest.skip("the system does not tell machines apart")
    claim = claims.take(tmp_path / "job", 60)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim.file.write_text(json.dumps(json.loads(claim.file.read_text()) | {"pid": ended.pid}))
    assert claims.take(tmp_path / "job", 60) is not None
    # and one that is just being written is not
    (tmp_path / "other.claim.0").write_text("")
    assert claims.take(tmp_path / "other", 60) is None


def some_tasks(folder, number=4):
    return [Task(folder / f"jobs/{i}", f"task {i}") for i in range(number)]


def test_a_failure_is_kept_the_others_go_on_and_the_next_call_tries_it_again(tmp_path):
    tasks, lines, done = some_tasks(tmp_path), [], []

    def execute(task, claim):
        assert claim.file.exists()
        done.append(task.name)
        return Outcome("the disk is full" if task.name == "task 1" and len(done) < 5 else None)

    work(tasks, execute, lines.append)
    assert done == ["task 0", "task 1", "task 2", "task 3"]
    assert failures(tasks) == {tasks[1]: "the disk is full"} and finished(tasks) == [tasks[0], *tasks[2:]]
    assert any("task 1 failed: the disk is full; 1 of 4 finished, 1 failed; about" in line for line in lines)
    work(tasks, execute, lines.append)
    assert done[4:] == ["task 1"] and failures(tasks) == {} and len(finished(tasks)) == 4
    assert "4 of 4 finished" in lines[-1]
    work(tasks, execute, lines.append)
    assert len(done) == 5


def test_workers_share_the_tasks(tmp_path):
    tasks, done = some_tasks(tmp_path, 12), []

    def execute(task, claim):
        time.sleep(0.02)
        done.append(task.name)
        return Outcome("no" if task.name == "task 3" else None)

    threads = [threading.Thread(target=work, args=(tasks, execute, lambda line: None)) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(done) == sorted(task.name for task in tasks)
    assert len(failures(tasks)) == 1 and len(finished(tasks)) == 11
    assert not list((tmp_path / "jobs").glob("*.claim.*[!0]*")) and len(list((tmp_path / "jobs").glob("*.claim.*"))) == 1


def test_the_task_of_another_worker_is_waited_for_or_left(tmp_path):
    (task,), lines, done = some_tasks(tmp_path, 1), [], []
    claim = claims.take(task.mark, 60)

    def execute(task, claim):
        done.append(task.name)
        return Outcome()

    work([task], execute, lines.append, wait=False)
    assert not done
    threading.Timer(0.3, lambda: os.utime(claim.file, (time.time() - 999,) * 2)).start()
    work([task], execute, lines.append, stale=0.8)
    assert done == ["task 0"] and any("waiting" in line for line in lines)


def test_an_interrupted_task_is_free_again(tmp_path):
    tasks = some_tasks(tmp_path, 1)

    def interrupted(task, claim):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(tasks, interrupted, lambda line: None)
    assert failures(tasks) == {} and claims.take(tasks[0].mark, 60) is not None
