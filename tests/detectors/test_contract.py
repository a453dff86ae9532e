"""What holds for every detector: one parametrised test file, and a row for each detector."""

import contextlib
import functools
import inspect
import json
import os
import signal
from operator import getitem

import jax
import numpy as np
import pytest

import iadjax
from iadjax import detectors
from iadjax.config import base_config
from iadjax.cpu.dispatch import plain
from iadjax.experiment import fit, loop, run
from iadjax.experiment.fit import Stopped
from iadjax.experiment.log import Log
from iadjax.parallel.jit import jit_init, jit_update
from tests.conftest import draw_tree, drop_compiled_functions
from tests.tiny import tiny_networks

TINY_CLIP = {
    "backbone.name": "clip_tiny",
    "backbone.weights": "random",
    "networks.text.name": "clip_tiny_text",
    "networks.text.weights": "random",
}

# the smallest setting that goes through every branch of a detector, on 5 + 1 images in batches of 2
CASES = {
    "adtr": {
        "data.resize": 32,
        "detector.layers": ("layer2",),
        "detector.stride": 8,
        "detector.hidden": 16,
        "detector.heads": 2,
        "detector.width": 16,
        "detector.num_encoder_layers": 1,
        "detector.num_decoder_layers": 1,
        "detector.dropout": 0.0,
        "detector.labels": "pixel",
        "detector.epochs": 1,
        "detector.plus_epochs": 1,
    },
    "ae": {
        "detector.width": 2,
        "detector.latent": 4,
        "detector.patch": 64,
        "detector.crops": 2,
        "detector.steps": 5,
    },
    "anoddpm": {
        "data.resize": 16,
        "detector.width": 4,
        "detector.multipliers": (1,),
        "detector.blocks": 1,
        "detector.heads": 1,
        "detector.octaves": 2,
        "detector.steps": 5,
        "detector.start": 2,
        "detector.decay": 0.5,
        "detector.learning_rate": 1e-3,
    },
    "anomalyclip": {
        **TINY_CLIP,
        "protocol.name": "zero_shot",
        "protocol.source": "folder",
        "detector.blocks": (2,),
        "detector.prompt_length": 2,
        "detector.depth": 2,
        "detector.deep_length": 1,
        "detector.epochs": 1,
    },
    "anomalydino": {
        "protocol.name": "few_shot",
        "protocol.num_shots": 3,
        "detector.layers": ("layer2",),
        "detector.rotations": 4,
    },
    "ast": {
        "detector.layer": "layer2",
        "detector.coupling_blocks": 1,
        "detector.teacher_hidden": 4,
        "detector.student_blocks": 1,
        "detector.student_hidden": 8,
        "detector.condition_dimension": 4,
        "detector.epochs": 1,
    },
    "cdo": {"detector.layers": ("layer1",), "detector.width": 4, "detector.epochs": 2},
    "cfa": {"detector.layers": ("layer2",), "detector.gamma_c": 4, "detector.epochs": 1},
    "cflow": {
        "detector.layers": ("layer2", "layer3"),
        "detector.coupling_blocks": 2,
        "detector.condition_dimension": 8,
        "detector.fiber_batch": 32,
        "detector.epochs": 2,
        "detector.meta_epochs": 2,
        "detector.warmup": 1.0,
        "detector.learning_rate": 1e-3,
    },
    "csflow": {
        "detector.layer": "layer2",
        "detector.scales": 2,
        "detector.coupling_blocks": 1,
        "detector.hidden": 4,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
    },
    "cutpaste": {
        "detector.layers": ("layer2",),
        "detector.head": (8,),
        "detector.patch": 32,
        "detector.stride": 16,
        "detector.density_stride": 16,
        "detector.steps": 5,
    },
    "daad": {
        "data.resize": 16,
        "detector.width": 2,
        "detector.block_sides": (2, 1),
        "detector.items": 5,
        "detector.discriminator_width": 2,
        "detector.epochs": 2,
    },
    "ddad": {
        "data.resize": 16,
        "detector.layers": ("layer1", "layer2"),
        "detector.compared": ("layer2",),
        "detector.width": 4,
        "detector.multipliers": (1,),
        "detector.blocks": 1,
        "detector.attention": (),
        "detector.heads": 1,
        "detector.start": 4,
        "detector.skip": 2,
        "detector.epochs": 1,
        "detector.adapt_epochs": 1,
    },
    "destseg": {
        "detector.layers": ("layer2",),
        "detector.width": 4,
        "detector.blocks": 1,
        "detector.hidden": 8,
        "detector.rates": (2,),
        "detector.student_steps": 2,
        "detector.segment_steps": 2,
    },
    "devnet": {"protocol.name": "supervised", "protocol.num_anomalies": 1, "detector.layers": ("layer1",), "detector.steps": 5},
    "dfkde": {"detector.layers": ("layer1", "layer2"), "detector.num_components": 2},
    "dfm": {"detector.layer": "layer2", "detector.pooling": 2},
    "dfr": {"detector.layers": ("layer2", "layer3"), "detector.map_size": 8, "detector.pooling": 2, "detector.epochs": 2},
    "differnet": {
        "detector.layers": ("layer1",),
        "detector.scales": 2,
        "detector.coupling_blocks": 1,
        "detector.hidden": 4,
        "detector.train_rotations": 2,
        "detector.rotations": 2,
        # the gradient of the filters takes XLA half a minute to compile; tests/detectors/test_differnet.py has the maps
        "detector.gradient_map": False,
        "detector.epochs": 2,
    },
    "diffusionad": {
        "data.resize": 32,
        "detector.width": 4,
        "detector.multipliers": (1,),
        "detector.blocks": 1,
        "detector.attention": (),
        "detector.heads": 1,
        "detector.segment_width": 6,
        "detector.segment_rate": 1e-2,
        "detector.epochs": 2,
    },
    "dinomaly": {"detector.layers": ("layer2", "layer3"), "detector.depth": 2, "detector.steps": 5, "detector.warmup": 2},
    "draem": {"detector.width": 4, "detector.segment_width": 6, "detector.epochs": 2},
    "dsr": {
        "data.resize": 32,
        "detector.codes": 8,
        "detector.dimension": 2,
        "detector.width": 4,
        "detector.hidden": 2,
        "detector.layers": 0,
        "detector.inner": 2,
        "detector.segment_width": 2,
        "detector.restrict_levels": 1,
        "detector.segment_levels": 1,
        "detector.codebook_images": "train",
        "detector.codebook_steps": 3,
        "detector.restore_steps": 2,
        "detector.refine_steps": 2,
    },
    "efficientad": {
        "backbone.name": "pdn_tiny",
        "data.resize": 128,
        "detector.steps": 3,
    },
    "fastflow": {"detector.epochs": 2, "detector.flow_steps": 2},
    "favae": {"detector.layers": ("layer1",), "detector.width": 1, "detector.latent": 4, "detector.epochs": 2},
    "foundad": {
        "detector.layers": ("layer2",),
        "detector.width": 8,
        "detector.depth": 1,
        "detector.heads": 2,
        "detector.epochs": 2,
    },
    "fre": {"detector.layer": "layer2", "detector.latent": 4, "detector.epochs": 2},
    "fyd": {"detector.layers": ("layer1",), "detector.width": 4, "detector.epochs": 2},
    "ganomaly": {"data.resize": 16, "detector.width": 2, "detector.latent": 4, "detector.epochs": 2},
    "gaussian_ad": {"detector.layers": ("layer1", "layer2")},
    "gcpf": {"detector.num_clusters": 3, "detector.kmeans_epochs": 2, "detector.gaussian_epochs": 1},
    "generalad": {
        "detector.layers": ("layer2",),
        "detector.heads": 2,
        "detector.hidden": 8,
        "detector.epochs": 2,
        "detector.shuffle": True,
    },
    "glass": {
        "detector.layers": ("layer2",),
        "detector.pretrain_dimension": 16,
        "detector.target_dimension": 16,
        "detector.hidden": 8,
        "detector.ascent_steps": 2,
        "detector.project_every": 2,
        "detector.epochs": 2,
    },
    "hvqtrans": {
        "data.resize": 32,
        "detector.layers": ("layer2",),
        "detector.stride": 8,
        "detector.hidden": 8,
        "detector.heads": 2,
        "detector.width": 8,
        "detector.dropout": 0.0,
        "detector.num_layers": 1,
        "detector.codes": 4,
        "detector.revive": 0.03,
        "detector.epochs": 2,
    },
    "ikd": {"detector.layers": ("layer1",), "detector.level_weights": (1.0,), "detector.width": 4, "detector.epochs": 2},
    "inpformer": {
        "data.resize": 32,
        "detector.layers": ("layer2", "layer3"),
        "detector.depth": 2,
        "detector.num_prototypes": 2,
        "detector.epochs": 2,
        "detector.warmup": 2,
    },
    "intra": {
        "data.resize": 32,
        "detector.side": 8,
        "detector.length": 3,
        "detector.d": 8,
        "detector.blocks": 2,
        "detector.heads": 2,
        "detector.dropout": 0.1,
        "detector.windows": 2,
        "detector.pool_size": 5,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
    },
    "inversionad": {
        "detector.layers": ("layer2", "layer3"),
        "detector.width": 8,
        "detector.depth": 1,
        "detector.heads": 2,
        "detector.epochs": 2,
        "detector.warmup_epochs": 1,
        "detector.learning_rate": 1e-2,
    },
    "memseg": {
        "detector.layers": ("layer1", "layer2", "layer3"),
        "detector.num_memory": 3,
        "detector.width": 4,
        "detector.steps": 5,
    },
    "mh_patchcore": {
        "detector.pretrain_dimension": 16,
        "detector.target_dimension": 16,
        "detector.block_images": 2,
        "detector.local_size": 8,
        "detector.bank_size": 12,
    },
    "mkd": {"detector.layers": ("layer1", "layer2"), "detector.num_scored": 1, "detector.width": 4, "detector.epochs": 1},
    "msc": {
        "detector.layers": ("layer2",),
        "detector.trained": ("conv2",),
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
    },
    "msflow": {
        "detector.layers": ("layer1", "layer2"),
        "detector.blocks": (1, 1),
        "detector.condition_dimension": 4,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-3,
    },
    "mstunet": {
        "detector.width": 4,
        "detector.depths": (1,),
        "detector.heads": (2,),
        "detector.window": 4,
        "detector.segment_width": 2,
        "detector.cell": 8,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-3,
    },
    "musc": {
        "protocol.name": "zero_shot",
        "protocol.test_batch": True,
        "threshold.holdout": 0.0,
        "detector.layers": ("layer2",),
        "detector.class_layer": "layer3",
        "detector.degrees": (3,),
    },
    "nsa": {"detector.width": 2, "detector.blocks": (1, 1, 1, 1), "detector.epochs": 2},
    "ocrgan": {
        "data.resize": 8,
        "detector.width": 2,
        "detector.discriminator_width": 2,
        "detector.latent": 4,
        "detector.noise": 0.1,
        "detector.cutout": 4,
        "detector.epochs": 2,
    },
    "padim": {"detector.num_channels": 20},
    "panda": {"detector.layers": ("layer3",), "detector.trained": ("conv3",), "detector.epochs": 2},
    "patchcore": {"detector.layers": ("layer1", "layer2"), "detector.coreset_ratio": 0.2},
    "patchflow": {
        "detector.layers": ("layer1", "layer2"),
        "detector.num_scales": 2,
        "detector.dimension": 8,
        "detector.hidden": 4,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
    },
    "patchsvdd": {
        # embeddings of deeper untrained encoders differ by little more than rounding
        "detector.widths": (),
        "detector.dimension": 4,
        "detector.hidden": 4,
        "detector.pairs": 2,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
        "detector.small_stride": 8,
    },
    "pni": {
        "detector.layers": ("layer2",),
        "detector.patch_size": 3,
        "detector.pretrain_dimension": 16,
        "detector.target_dimension": 16,
        "detector.coreset_ratio": 0.2,
        "detector.distribution_size": 8,
        "detector.reach": 1,
        "detector.mlp_layers": 2,
        "detector.hidden": 8,
        "detector.epochs": 1,
        "detector.refine_steps": 2,
        "detector.refine_width": 4,
        "detector.refine_halvings": 1,
    },
    "pyramidflow": {
        "detector.levels": 2,
        "detector.stacks": 1,
        "detector.kernel": 3,
        "detector.epochs": 1,
        "detector.learning_rate": 1e-3,
    },
    "rad": {
        "detector.layers": ("layer2",),
        "detector.class_layer": "layer3",
        "detector.num_images": 2,
        "detector.map_size": 32,
    },
    "rd4ad": {"detector.epochs": 2},
    "rdpp": {"detector.epochs": 1, "detector.octaves": 1},
    "reconpatch": {
        "detector.layers": ("layer2",),
        "detector.dimension": 8,
        "detector.projection_dimension": 4,
        "detector.epochs": 1,
        "detector.coreset_ratio": 0.2,
    },
    "rgi": {
        "data.resize": 8,
        "detector.width": 2,
        "detector.latent": 4,
        "detector.steps": 5,
        "detector.starts": 4,
        "detector.iterations": 3,
        "detector.relaxed": True,
        "detector.relaxed_from": 1,
    },
    "riad": {
        "detector.width": 2,
        "detector.depth": 2,
        "detector.cell_sides": (4, 8),
        "detector.window": 5,
        "detector.epochs": 2,
    },
    "scadn": {
        "data.resize": 24,
        "detector.width": 2,
        "detector.blocks": 1,
        "detector.discriminator_width": 2,
        "detector.stripes": (2, 4),
        "detector.epochs": 2,
    },
    "score_based": {
        "data.resize": 8,
        "detector.width": 4,
        "detector.multipliers": (1,),
        "detector.blocks": 1,
        "detector.attention": (),
        "detector.heads": 1,
        "detector.epochs": 2,
        "detector.decay": 0.5,
        "detector.learning_rate": 1e-3,
        "detector.measure": "error",
        "detector.sampling_steps": 2,
        "detector.window": 3,
    },
    "simplenet": {
        "detector.epochs": 2,
        "detector.pretrain_dimension": 24,
        "detector.target_dimension": 16,
        "detector.hidden": 16,
    },
    "softpatch": {"detector.layers": ("layer2",), "detector.embedding": "pool", "detector.lof_neighbors": 2},
    "somad": {
        "detector.num_channels": 10,
        "detector.side": 3,
        "detector.rough_epochs": 1,
        "detector.fine_epochs": 1,
        "detector.num_neighbors": 2,
    },
    "spade": {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "detector.num_images": 2},
    "stpm": {"detector.layers": ("layer1", "layer2"), "detector.width": 4, "detector.epochs": 2},
    "subspacead": {
        "protocol.name": "few_shot",
        "protocol.num_shots": 3,
        "detector.layers": ("layer2",),
        "detector.rotations": 2,
    },
    "superad": {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "detector.num_references": 2},
    "superadd": {
        "detector.layers": ("layer2",),
        "detector.tile": 48,
        "detector.overlap": 8,
        "detector.bank_size": 100,
        "detector.subsets": 2,
    },
    "supersimplenet": {
        "detector.layers": ("layer2",),
        "detector.hidden": 8,
        "detector.width": 4,
        "detector.epochs": 2,
    },
    "transfusion": {
        "data.resize": 16,
        "detector.width": 4,
        "detector.multipliers": (1, 1),
        "detector.attended": 0,
        "detector.blocks": 1,
        "detector.steps": 4,
        "detector.learning_rate": 1e-3,
        "detector.epochs": 2,
    },
    "uflow": {
        "detector.layers": ("layer2", "layer3"),
        "detector.flow_steps": 1,
        "detector.scores": "nfa",
        "detector.epochs": 2,
        "detector.learning_rate": 1e-3,
    },
    "uniad": {
        "detector.stride": 8,
        "detector.hidden": 16,
        "detector.heads": 2,
        "detector.width": 16,
        "detector.neighbor_size": 3,
        "detector.epochs": 2,
        "detector.num_encoder_layers": 1,
        "detector.num_decoder_layers": 1,
    },
    "uninet": {"data.resize": 32, "detector.epochs": 1, "detector.learning_rate": 1e-3, "detector.classify": True},
    "us": {
        "detector.layer": "layer1",
        "detector.patch_sizes": (33,),
        "detector.num_students": 2,
        "detector.width": 2,
        "detector.dimension": 4,
        "detector.teacher_steps": 2,
        "detector.crops": 2,
        "detector.epochs": 1,
    },
    "vae": {"detector.width": 2, "detector.latent": 4, "detector.epochs": 2},
    "vtadl": {
        "data.resize": 32,
        "detector.patch": 8,
        "detector.dim": 8,
        "detector.depth": 1,
        "detector.heads": 2,
        "detector.hidden": 8,
        "detector.capsule_side": 8,
        "detector.widths": (4,),
        "detector.kernels": (4, 4),
        "detector.strides": (2, 2),
        "detector.paddings": (1, 1),
        "detector.gaussians": 2,
        "detector.epochs": 2,
        "detector.learning_rate": 1e-2,
    },
    "winclip": {**TINY_CLIP, "protocol.name": "few_shot", "protocol.num_shots": 3},
}


def test_every_detector_has_a_row():
    assert set(CASES) == set(detectors.MODULES)


def config_of(name, tree):
    config = base_config(name, "folder")
    config.data.update({"root": str(tree), "resize": 64, "batch_size": 2, "workers": 2})
    config.threshold.holdout = 0.2
    if "backbone" in config:
        config.backbone.update({"name": "tiny", "weights": "random"})
    for key, value in CASES[name].items():
        *sections, option = key.split(".")
        functools.reduce(getitem, sections, config)[option] = value
    if config.protocol.source == "folder":
        config.protocol.source_root = str(draw_tree(tree.parent / "source"))
    return config


WITHOUT_MAP = {"dfkde", "differnet", "ganomaly", "gaussian_ad", "msc", "panda"}

# half of their time would go into compiling Winograd's form, which tests/nn/test_convolution.py holds to the same
PLAIN = {
    "ae",
    "anoddpm",
    "cdo",
    "daad",
    "ddad",
    "destseg",
    "diffusionad",
    "draem",
    "dsr",
    "efficientad",
    "favae",
    "ganomaly",
    "ikd",
    "memseg",
    "mkd",
    "mstunet",
    "nsa",
    "ocrgan",
    "patchflow",
    "patchsvdd",
    "rd4ad",
    "rdpp",
    "rgi",
    "riad",
    "scadn",
    "score_based",
    "stpm",
    "supersimplenet",
    "transfusion",
    "uninet",
    "vae",
    "vtadl",
}


@pytest.fixture(scope="module", params=sorted(CASES))
def forms(request):
    """The name of a detector, whose programs have convolutions in the fast forms or, for those in `PLAIN`, in XLA's own."""
    with tiny_networks(), plain() if request.param in PLAIN else contextlib.nullcontext():
        yield request.param
    # before the next detector comes
    drop_compiled_functions()


@pytest.fixture(scope="module")
def fitted(forms, tmp_path_factory):
    """The name, a run, one without the feature cache that was stopped in the middle of its first epoch and resumed, with what
    both predict, and of the first update of each phase of the first run what it was given."""
    root = tmp_path_factory.mktemp(forms)
    config = config_of(forms, draw_tree(root))
    first, shared, compiled_predict, write = {}, {}, run._compiled, Log.write

    # the three trainings share their functions, because tracing and reading them again takes half of the time; what differs in
    # its arguments, as without the feature cache, is traced again all the same
    def once(name, function):
        return shared.setdefault(name, function)

    def spied(devices, detector, update, state):
        compiled = once(update.__name__, jit_update(devices, detector, update, state))

        def call(key, state, frozen, batch):
            # copied, because the state is donated
            first.setdefault(update.__name__, (compiled, frozen, *jax.device_get((state, batch))))
            return compiled(key, state, frozen, batch)

        return call

    def stop(self, step, *rest):
        write(self, step, *rest)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "jit_init", lambda *args: once("init", jit_init(*args)))
        patch.setattr(loop, "jit_update", spied)
        patch.setattr(run, "_compiled", lambda *args: once("predict", compiled_predict(*args)))
        whole = iadjax.fit(config, root / "whole")
        config.data.feature_cache_bytes = 0
        with patch.context() as stopping:
            stopping.setattr(Log, "write", stop)
            with pytest.raises(Stopped, match="step 2"):
                iadjax.fit(config, root / "parts")
        parts = iadjax.fit(config, root / "parts", resume=True)
        predicted = [each.predict_batch(images(whole)) for each in (whole, parts)]
    return forms, whole, (parts, predicted), first


def images(run, count=2, seed=0):
    """Images as the input pipeline hands them to the programs of a run: so nothing more is compiled for batches of two."""
    size = run.config["data"]["resize"]
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def equal(a, b):
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(leaves) == len(others) and all(np.array_equal(x, y) for x, y in zip(leaves, others, strict=True))


def test_same_seed_same_state_also_after_a_stop_and_without_the_feature_cache(fitted):
    _, whole, (parts, predicted), _ = fitted
    assert equal(whole.state, parts.state)
    assert whole.threshold == parts.threshold
    assert equal(*predicted)


def test_scores_do_not_depend_on_the_batch(fitted):
    name, run, _, _ = fitted
    pixels = images(run, 3)
    together = run.predict_batch(pixels[:2])
    assert together.score.shape == (2,) and together.score.dtype == np.float32
    assert np.all(np.isfinite(together.score)) and np.ptp(together.score) > 0
    # a detector that does not localise has no map
    localises = together.map is not None
    assert localises == (name not in WITHOUT_MAP)
    if localises:
        assert together.map.shape == (2, *pixels.shape[1:3]) and together.map.dtype == np.float32
        assert np.all(np.isfinite(together.map))
    scale = np.abs(together.map if localises else together.score).max()
    for other in (run.predict_batch(pixels[[2, 0]]), run.predict_batch(pixels[:1])):
        np.testing.assert_allclose(other.score[-1], together.score[0], rtol=2e-5, atol=2e-5 * scale)
        if localises:
            np.testing.assert_allclose(other.map[-1], together.map[0], atol=5e-5 * scale)


def test_state_is_exported_whole(fitted):
    _, run, _, _ = fitted
    loaded = iadjax.load(run.workdir)
    assert jax.tree.structure(run.state) == jax.tree.structure(loaded.state) and equal(run.state, loaded.state)
    assert loaded.threshold == run.threshold
    assert equal(run.predict_batch(images(run)), loaded.predict_batch(images(run)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(run.state))


def test_every_function_is_compiled_once(fitted):
    _, run, _, _ = fitted
    compiled = json.loads((run.workdir / "run.json").read_text())["compilations"]["programs"]
    phases = [phase.name.replace(" ", "_") for phase in run.detector.phases(run.spec)]
    assert {name: number for name, number in compiled.items() if name.startswith("update")} == {
        f"update_{name}": 1 for name in phases
    }


def spoiled(batch):
    """The batch with its last row padded, and other numbers there."""

    def other(array):
        array = np.array(array)
        array[-1] = 255 - array[-1] if array.dtype == np.uint8 else 1 - array[-1]
        return array

    parts = {name: jax.tree.map(other, getattr(batch, name)) for name in ("image", "features", "extra", "mask")}
    valid = np.array(batch.valid)
    valid[-1] = False
    return batch._replace(valid=valid), batch._replace(valid=valid, **parts)


def test_padded_rows_do_not_matter(fitted):
    *_, first = fitted
    for compiled, frozen, state, batch in first.values():
        one, two = (
            compiled(jax.random.key(3), jax.device_put(state, jax.local_devices()[0]), frozen, each) for each in spoiled(batch)
        )
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert all(np.shape(value) == () for value in one[1].values())


def test_options_are_documented(fitted):
    name, *_ = fitted
    text = inspect.getdoc(detectors.factory(name))
    missing = [option for option in detectors.options(name) if option not in text]
    assert not missing and "Raises:" in text and "\nMap: " in text
