"""The argument of a config file: types, sentences, config keys."""

import pytest

from iadjax.config import base_config, finish, override, parse_arg, quick
from iadjax.errors import UserError


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        ("", ("synthetic", "", False, {}, {})),
        ("mvtec_ad", ("mvtec_ad", "", False, {}, {})),
        ("mvtec_ad,category=bottle", ("mvtec_ad", "bottle", False, {}, {})),
        ("quick", ("synthetic", "", True, {}, {})),
        ("synthetic, quick=false", ("synthetic", "", False, {}, {})),
        ("visa,data.resize=(64, 48),quick", ("visa", "", True, {}, {"data.resize": "(64, 48)"})),
        ('mvtec_ad,category="bottle,cable"', ("mvtec_ad", '"bottle,cable"', False, {}, {})),
        ("folder,detector.layers=('layer1', 'layer2')", ("folder", "", False, {}, {"detector.layers": "('layer1', 'layer2')"})),
    ],
)
def test_parse(arg, expected):
    assert parse_arg(arg) == expected


def test_further_names_have_the_types_of_their_defaults():
    defaults = {"shots": 1, "ratio": 0.5, "big": False, "layers": ("a",), "name": "x"}
    assert parse_arg("visa", **defaults).options == defaults
    found = parse_arg("visa,shots=4,ratio=1,big,layers=['b', 'c'],name=y", **defaults).options
    assert found == {"shots": 4, "ratio": 1.0, "big": True, "layers": ("b", "c"), "name": "y"}
    assert type(found["ratio"]) is float


@pytest.mark.parametrize(
    ("arg", "sentence"),
    [
        ("mvtec_ad:bottle", "has a form of earlier versions; write 'mvtec_ad,category=bottle'"),
        ("smoke", "has a form of earlier versions; write 'synthetic,quick'"),
        ("smoke:wood", "write 'synthetic,quick,category=wood'"),
        ("mvtecad", "names no data set; did you mean 'mvtec_ad'"),
        ("visa,quik", "the unknown word 'quik'; did you mean 'quick'"),
        ("visa,shot=3", "the unknown word 'shot=3'; did you mean 'shots'"),
        ("visa,shots=many", "needs for 'shots' a value of the type int like shots=1"),
        ("visa,shots=1.5", "needs for 'shots' a value of the type int"),
        ("visa,shots", "needs for 'shots' a value"),
        ("visa,category=", "needs for 'category' a value of the type str like category=NAME"),
        ("visa,quick=1", "needs for 'quick' a value of the type true or false"),
        ("visa,quick,quick", "gives 'quick' twice"),
        ("visa,data.resize=1,data.resize=2", "gives 'data.resize' twice"),
        ("visa,mtd", "the unknown word 'mtd'"),
    ],
)
def test_what_is_left_over_is_refused(arg, sentence):
    with pytest.raises(UserError) as error:
        parse_arg(arg, shots=1)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"data.resiz": "3"}, "no key 'data.resiz'; did you mean 'resize'"),
        ({"dat.resize": "3"}, "no key 'dat.resize'; did you mean 'data'"),
        ({"seed.x": "3"}, "no key 'seed.x'"),
        ({"protocol.k": "3"}, "the old key 'protocol.k', which is 'protocol.num_shots' now"),
        ({"detector.coreset_ratio": "much"}, "config.detector.coreset_ratio must be float, like 0.1, got 'much'"),
        ({"evaluate.pixel": "1"}, "config.evaluate.pixel must be bool"),
    ],
)
def test_a_wrong_key_is_refused(keys, sentence):
    with pytest.raises(UserError) as error:
        override(base_config("patchcore", "synthetic"), keys)
    assert sentence in str(error.value)


def test_keys_are_set_with_their_types_after_all_else():
    config = base_config("patchcore", "mtd")
    quick(config, {"coreset_ratio": 0.5}, batch_size=3)
    assert (config.data.resize, config.data.batch_size, config.quick) == (128, 3, True)
    text = "mtd,category=a,data.resize=(64, 48),detector.coreset_ratio=1,evaluate.pixel=false,detector.layers=['layer1']"
    finish(config, parse_arg(text + ",backbone.name=resnet18,data.channels=auto"))
    assert config.data.resize == (64, 48) and config.data.category == "a" and config.data.channels == "auto"
    assert config.detector.coreset_ratio == 1.0 and config.detector.layers == ("layer1",)
    assert config.evaluate.pixel is False and config.backbone.name == "resnet18"
