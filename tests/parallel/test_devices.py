"""One device against eight, and two processes: the same picks, the same scores, one run carried from one to the next."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import draw_tree

ROOT = Path(__file__).parents[2]

# a bank, a Gaussian, a trained detector, and one with phases and random numbers
FITTED = ("patchcore", "padim", "fastflow", "toy")
# UniAD has dropout and noise of each row
REPLICAS = ("patchcore", "padim", "uniad", "toy")


def environment(devices):
    # devices are made when a process starts, so each test has processes of its own
    flags = " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag)
    chosen = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **chosen, "XLA_FLAGS": flags}


def free_port():
    with socket.socket() as connection:
        connection.bind(("localhost", 0))
        return connection.getsockname()[1]


def fitted(folder, name, devices, cases, processes=1):
    """What `devices_program` found on so many devices in each of so many processes."""
    out = folder / f"{name}.npz"
    command = [sys.executable, "-m", "tests.parallel.devices_program", out, folder / name, folder / "bolt", cases]
    port = free_port()
    several = [[f"localhost:{port}", processes, i] for i in range(processes)] if processes > 1 else [[]]
    running = [
        subprocess.Popen(list(map(str, command + more)), env=environment(devices), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for more in several
    ]
    ends = [process.communicate(timeout=600)[1] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(end[-3000:] for end in ends)
    with np.load(out) as found:
        return dict(found)


def assert_equal_results(found, single):
    assert found
    for key, value in found.items():
        truth = single[key]
        assert value.shape == truth.shape, key
        if value.dtype.kind == "i":
            np.testing.assert_array_equal(value, truth, err_msg=key)
        elif "/bank" in key:
            # row by row: another pick would be another row
            np.testing.assert_allclose(value, truth, atol=1e-4, err_msg=key)
        else:
            np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-5 * np.abs(truth).max(), err_msg=key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    draw_tree(folder)
    return folder


@pytest.fixture(scope="module")
def single(folder):
    """The results of one device, and a run that it leaves in the middle."""
    return fitted(folder, "one", 1, f"ops,budget,stopped!2,uniad,{','.join(FITTED)}")


@pytest.fixture(scope="module")
def eight(folder, single):
    """The same on eight devices, which take the stopped run a little further."""
    shutil.copytree(folder / "one/stopped", folder / "eight/stopped")
    replicas = ",".join(f"{name}@pmap" for name in REPLICAS)
    return fitted(folder, "eight", 8, f"ops,budget,stopped!4,{','.join(FITTED)},{replicas}")


@pytest.fixture(scope="module")
def two(folder, eight):
    """Two processes, which finish the stopped run."""
    shutil.copytree(folder / "eight/stopped", folder / "two/stopped")
    return fitted(folder, "two", 1, "patchcore,padim,fastflow,stopped", processes=2)


def test_eight_devices_find_what_one_finds(single, eight):
    jit = {key: value for key, value in eight.items() if not key.startswith("pmap")}
    assert {key.split("/")[0] for key in jit} == {"ops", "norm", "gradient", "budget", *FITTED}
    assert_equal_results(jit, single)


def test_replicas_find_what_one_device_finds(single, eight):
    replicas = {key.removeprefix("pmap"): value for key, value in eight.items() if key.startswith("pmap")}
    assert {key.split("/")[0] for key in replicas} == set(REPLICAS)
    assert_equal_results(replicas, single)


def test_two_processes_find_what_one_finds(single, two):
    assert_equal_results({key: value for key, value in two.items() if not key.startswith("stopped")}, single)


def test_a_run_goes_from_one_device_to_eight_to_two_processes(single, two, folder):
    # one image at a time there, three at a time here: the same patches but for rounding
    for key in ("score", "map", "bank"):
        np.testing.assert_allclose(two[f"stopped/{key}"], single[f"patchcore/{key}"], rtol=1e-4, atol=1e-4)
    log = (folder / "two/stopped/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5]
    record = json.loads((folder / "two/stopped/run.json").read_text())
    assert record["processes"] == 2 and record["device"]["count"] == 2


def test_a_process_that_dies_stops_the_others_and_the_run_goes_on_with_one(tmp_path):
    tree, workdir = draw_tree(tmp_path), tmp_path / "run"
    command = [sys.executable, ROOT / "scripts/train.py", f"--config={ROOT}/configs/unsupervised/simplenet.py:folder"]
    command += [f"--workdir={workdir}", f"--config.data.root={tree}", "--config.data.resize=32", "--config.data.crop=0"]
    command += [
        "--config.data.batch_size=2",
        "--config.backbone.name=filter_bank",
        "--config.detector.layers=('layer1',)",
        "--config.detector.hidden=8",
    ]
    command += ["--config.detector.pretrain_dimension=8", "--config.detector.target_dimension=8"]
    command += ["--config.detector.epochs=20", "--config.checkpoint_every=5", "--config.threshold.holdout=0.2", "--resume"]
    command = list(map(str, command))
    where = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    processes = [
        subprocess.Popen([*command, *where, f"--process_id={i}"], env=environment(1), stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    deadline = time.monotonic() + 300
    while not list(workdir.glob("checkpoints/step_*[0-9]")):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.02)
    processes[1].kill()
    processes[1].communicate()
    _, said = processes[0].communicate(timeout=100)
    assert processes[0].returncode in (1, 2), said[-2000:]
    sentence = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(sentence) == 1 and "--resume" in sentence[0], said[-2000:]
    steps = [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert len(steps) < 60
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "continuing from step" in done.stderr, done.stderr[-2000:]
    steps = [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61)) and (workdir / "report/index.html").is_file()
