"""Keys of earlier versions are refused with their new names, wherever a config comes from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import iadjax
from iadjax.config import base_config, resolve
from iadjax.config.schema import OLD_KEYS
from iadjax.errors import UserError
from iadjax.experiment.fit import check_workdir

ROOT = Path(__file__).parents[2]


def with_key(key, value=1):
    section, name = key.split(".")
    config = base_config().to_dict()
    return config | {section: config[section] | {name: value}}


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_a_config_names_the_new_key(old, new):
    section, name = new.split(".")
    assert name in base_config()[section]
    with pytest.raises(UserError, match=f"the config has the old key '{old}', which is '{new}' now; use the new name"):
        resolve(with_key(old))


def test_a_run_directory_names_the_new_key(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(with_key("protocol.k")))
    sentence = "is of an earlier version and has to be fitted again: its config has the old key 'protocol.k', which is"
    with pytest.raises(UserError, match=sentence):
        iadjax.load(tmp_path)
    with pytest.raises(UserError, match=sentence):
        check_workdir(tmp_path, resolve(base_config()), resume=True)


def test_a_flag_names_the_new_key(tmp_path):
    arguments = [sys.executable, ROOT / "scripts/train.py", "--config.protocol.k=4", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr == (
        "error: the flag has the old key 'protocol.k', which is 'protocol.num_shots' now; use the new name\n"
    )
