"""Training on the labelled images of another data set (`protocol.source`)."""

import numpy as np
import pytest

from iadjax import data
from iadjax.config import base_config, build_data, resolve
from iadjax.errors import UserError
from tests.conftest import draw_tree


def config_of(root, **protocol):
    config = base_config("patchcore", "folder")
    config.data.update({"root": str(root), "resize": 32})
    config.protocol.update({"name": "zero_shot", **protocol})
    return resolve(config)


def test_images_of_the_source_are_fitted_on_and_those_of_the_data_set_tested(tmp_path):
    built = build_data(config_of(draw_tree(tmp_path), source="synthetic:wood"))
    source = data.load("synthetic", category="wood")
    assert len(built.split.train) == len(source.test) and not built.split.validation
    assert {item.label for item in built.split.train} == {0, 1}
    assert {item.category for item in built.split.train} == {"synthetic:wood"} and "wood" not in built.dataset.categories
    assert built.split.test == data.load("folder", root=str(tmp_path)).test
    for ours, theirs in zip(built.split.train, source.test, strict=True):
        assert ours.path == f"synthetic:{theirs.path}"
    # images and masks are those of the source, and the others are read as before
    for ours, theirs in ((built.split.train[-1], source.read(source.test[-1])), (built.split.test[0], None)):
        image, mask = data.read(built.dataset, ours)
        if theirs:
            assert np.array_equal(image, theirs[0]) and np.array_equal(mask, theirs[1]) and mask.any()
    # a detector sees no category there
    transform = data.Transform(32, 0)
    (batch,) = list(data.batches(built.dataset, built.split.train[:2], transform, 2, workers=0))
    assert list(batch.category) == [-1, -1]


def test_a_fitted_run_needs_no_source(tmp_path):
    config = config_of(draw_tree(tmp_path), source="mvtec_ad", source_root="gone")
    assert build_data(config, fitted=True).split.train == ()
    with pytest.raises(UserError, match=r"protocol.source: .*gone"):
        build_data(config)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"source": "visaa"}, "protocol.source: there is no data set 'visaa'; did you mean 'visa'"),
        ({"source": "synthetic:wood", "test_batch": True}, "not on both"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, protocol, message):
    with pytest.raises(UserError, match=message):
        build_data(config_of(draw_tree(tmp_path), **protocol))


def test_the_data_set_itself_is_no_source(tmp_path):
    root = draw_tree(tmp_path)
    with pytest.raises(UserError, match="is the data set that is tested"):
        build_data(config_of(root, source="folder", source_root=str(root)))
    config = base_config("patchcore")
    config.data.category = "wood,washer"
    config.protocol.update({"name": "zero_shot", "source": "synthetic:wood"})
    with pytest.raises(UserError, match="has categories that are tested"):
        build_data(resolve(config))
