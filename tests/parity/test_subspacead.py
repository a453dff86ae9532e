"""SubspaceAD: the authors' PCA and scores of given tokens."""

import jax
import numpy as np
import pytest

from iadjax.backbones.backbone import Backbone, plain_features
from iadjax.detector import DataSpec
from iadjax.detectors.distribution.subspacead import subspacead
from tests.direct import phases
from tests.parity import harness
from tests.parity.harness import Card, batch_of


def given() -> Backbone:
    """A network whose tokens are the pixels of its image."""
    return Backbone("given", ("tokens",), lambda key, layers: {}, plain_features(lambda variables, image, layers: (image,)))


@pytest.mark.parametrize(("variance", "components", "name"), [(0.99, "k", "99"), (0.9, "k_90", "90")])
def test_authors(variance, components, name):
    card = Card("subspacead")
    detector = subspacead(given(), layers=("tokens",), rotations=0, variance=variance)
    # 150 tokens in three images of which one row is padded
    tokens = np.zeros((4, 5, 10, 24), np.float32)
    tokens[:3] = card["input/train_features"].reshape(3, 5, 10, 24)
    batch = batch_of(tokens)._replace(valid=np.array([True, True, True, False]))
    frozen = {"backbone": {}}
    state, _ = harness.update(detector, init(detector), frozen, batch)
    complement = np.asarray(state.complement, np.float64)
    assert complement.shape[1] == 24 - int(card[f"out/{components}"][0])
    harness.close(state.mean, card["out/mean"], what="mean")
    if name == "99":
        card.check("projector", np.eye(24) - complement @ complement.T)
    batch = batch_of(np.zeros((1, 48, 48, 3), np.float32))._replace(features=card["input/test_features"].reshape(1, 8, 8, 24))
    found = jax.jit(detector.predict)(state, frozen, batch)
    card.check(f"map_{name}", found.map[0])
    harness.close(found.score, card[f"out/score_{name}"], what="score")


def init(detector):
    spec = DataSpec(3, (5, 10, 24), ("a",), features=jax.ShapeDtypeStruct((1, 5, 10, 24), np.float32))
    assert [phase.name for phase in phases(detector)] == ["reference"]
    return detector.init(jax.random.key(0), {}, spec)
