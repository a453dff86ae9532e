"""The comparison with anomalib: its settings are those that our detectors have, and bad input ends with one sentence."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from iadjax import detectors

FOLDER = Path(__file__).parents[1] / "scripts/benchmarks"


def cases():
    spec = importlib.util.spec_from_file_location("peer_cases", FOLDER / "peer_cases.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_case_sets_options_that_its_detector_has(name):
    case, options = cases()[name], detectors.options(name)
    assert set(case.ours) <= set(options) and (FOLDER.parents[1] / "configs" / case.config).is_file()
    # what is trained has epochs on both sides, a bank a fraction, textures a folder
    assert any(case.epochs) == ("epochs" in options)
    assert (case.coreset is not None) == ("coreset_ratio" in options)
    assert case.textures == ("textures" in options)
    assert ("backbone" in case.theirs) == ("backbone" in detectors.networks(name))


def test_without_anomalib_it_ends_with_one_sentence(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    python = tmp_path / "python"
    given = [f"--hazelnut={tmp_path}", f"--weights={weights}", f"--workdir={tmp_path / 'runs'}"]
    for arguments, sentence in (
        ([], "error: give --weights=FILE"),
        ([*given, "--only=patchcor"], "error: there is no case 'patchcor'"),
        ([*given, f"--peer_python={python}"], f"error: --peer_python={python} cannot import anomalib"),
    ):
        done = subprocess.run([sys.executable, FOLDER / "peer_anomalib.py", *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith(sentence), done.stderr
    assert not (tmp_path / "runs").exists()
