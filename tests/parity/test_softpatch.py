"""SoftPatch: the authors' code."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from iadjax import backbones
from iadjax.backbones.backbone import PIXELS
from iadjax.detectors.memory_bank import softpatch as module
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3")


def measured(backbone, variables, size):
    """The variables after an image of ones in training mode.

    So the authors' code, like PatchCore's, finds the number of channels, and a tenth of BatchNorm's running statistics is then
    that image's. Ours leaves the weights as they are.
    """
    ones = np.broadcast_to(np.sum(PIXELS["imagenet"], axis=0, dtype=np.float32), (1, size, size, 3))
    _, changed = backbone.features(variables, ones, LAYERS, train=True)
    old, new = flatten_dict(variables["batch_stats"]), flatten_dict(changed)
    for path, value in new.items():
        if path[-1] == "var":
            # PyTorch's running variance has n - 1 in its denominator
            stage = int(path[0][5]) if path[0].startswith("layer") else 0
            positions = (size >> (stage + 1 if stage else 1)) ** 2
            batch = (np.asarray(value) - 0.9 * np.asarray(old[path])) / 0.1
            new[path] = 0.9 * old[path] + 0.1 * batch * positions / (positions - 1)
    return {**variables, "batch_stats": unflatten_dict(new)}


def test_authors(monkeypatch):
    card = Card("softpatch")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": measured(backbone, backbones.convert(backbone, card.tensors, LAYERS), 32)}
    sizes = {"pretrain_dimension": 128, "target_dimension": 128, "lof_neighbors": 4}
    # an eps at which nothing is projected, as in the card
    detector = module.softpatch(backbone, **sizes, projection_eps=0.1)
    picks = card["out/coreset_indices"].astype(np.int32)
    kept = []

    # their greedy choice begins with distances to ten random points, which ours does without
    def choose(key, bank, ratio, eps, allowed, from_mean):
        kept.append(allowed)
        return picks

    monkeypatch.setattr(module, "choose_coreset", choose)
    bank = harness.initial_state(detector, frozen, 32, images=9)
    bank, _ = harness.update(detector, bank, frozen, harness.batch_of(card["image_train"]), finalize=False)
    card.check("embedding", bank.features)
    weights = module.patch_weights(bank.features, module.by_position(bank), "lof", 4, 144)
    harness.close(weights, card["out/patch_weight"], what="patch_weight")
    (phase,) = detector.phases(harness.spec_for(detector, frozen, 9, (32, 32, 3)))
    memory = phase.finalize(jax.random.key(0), bank, frozen)
    assert np.array_equal(kept[0], np.flatnonzero(card["out/sampling_weight"]))
    harness.close(memory.weights, card["out/bank_weight"], what="bank_weight")
    found = harness.predict(detector, memory, frozen, card["image"])
    card.check("score", found.score)
    card.check("map", found.map)
