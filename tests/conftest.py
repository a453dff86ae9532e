"""Shared fixtures: small configs, image trees, and the place of real images and weights if there is one."""

import ctypes
import gc
import os
import platform
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from iadjax.config import base_config
from iadjax.cpu.dispatch import plain


def pytest_configure(config):
    """Workers, and processes that tests start, share what one of them has compiled, unless the caller has a place for it, and
    compile by the flags of XLA that take the least time, unless the caller sets XLA_FLAGS."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="iadjax-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # this process has read its environment already
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # what promotes a dtype or adds an axis by itself is an error
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # much of the time is compilation, of which these take less; XLA_FLAGS= tests what users run
    flags = ["--xla_backend_optimization_level=1"]
    # the older generator of code, in one piece, takes half as long; XLA ends a process that names a flag it no longer has
    if jax.__version_info__ < (0, 11):
        flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ.setdefault("XLA_FLAGS", " ".join(flags))


def pytest_collection_finish():
    """The garbage collector need not look at what was imported, nor look so often: that took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def drop_compiled_functions() -> None:
    """Frees compiled functions, and gives what they took back to the system."""
    jax.clear_caches()
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True, scope="module")
def no_compiled_functions_of_other_files():
    """Compiled functions are dropped after each file: a worker that keeps them grows to gigabytes."""
    yield
    drop_compiled_functions()


@pytest.fixture
def plain_convolutions():
    """XLA's own convolutions: the fast forms take longer to compile, and tests/nn/test_convolution.py holds them to these."""
    with plain():
        yield


@pytest.fixture
def config():
    """PatchCore on one synthetic category, small enough for seconds."""
    config = base_config("patchcore", "synthetic")
    config.data.update({"category": "washer", "resize": 64, "batch_size": 8, "workers": 2})
    config.detector.update({"layers": ("layer1", "layer2"), "coreset_ratio": 0.05})
    config.evaluate.pixel = False
    return config


def draw_tree(parent: Path) -> Path:
    """A folder in the MVTec AD layout: 6 + 2 good and 2 bad 40 x 40 images with masks."""
    root = parent / "bolt"
    rng = np.random.default_rng(0)

    def draw(path, spot):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(100, 130, (40, 40, 3), np.uint8)
        if spot:
            pixels[10:20, 10:20] = 255
        Image.fromarray(pixels).save(path)

    for i in range(6):
        draw(root / f"train/good/{i:03d}.png", False)
    for i in range(2):
        draw(root / f"test/good/{i:03d}.png", False)
        draw(root / f"test/dent/{i:03d}.png", True)
        mask = np.zeros((40, 40), np.uint8)
        mask[10:20, 10:20] = 255
        path = root / f"ground_truth/dent/{i:03d}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return root


@pytest.fixture
def tree(tmp_path):
    """The folder of `draw_tree`."""
    return draw_tree(tmp_path)


def config_for(tree: Path):
    """PatchCore on the tree of `draw_tree`."""
    config = base_config("patchcore", "folder")
    config.data.update({"root": str(tree), "resize": 32, "batch_size": 4, "workers": 0})
    config.detector.update({"layers": ("layer1", "layer2"), "coreset_ratio": 0.5})
    config.threshold.holdout = 0.2
    return config


@pytest.fixture
def tree_config(tree):
    """The config of `config_for`."""
    return config_for(tree)


@pytest.fixture
def shared():
    """The folder with real images and weights that IADJAX_SHARED names; skips without it."""
    path = Path(os.environ.get("IADJAX_SHARED", "nowhere"))
    if not (path / "weights").is_dir():
        pytest.skip("no real weights: set IADJAX_SHARED to a folder with weights/ and data/")
    return path
