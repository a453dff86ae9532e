"""One line for every config key, which --help, `iadjax configs` and docs/configs.md show."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from iadjax import detectors

__all__ = ["KEYS", "describe", "listing", "option_lines"]

KEYS = {
    "seed": "seed of everything that is random",
    "quick": "set by `quick` in a config's argument: a shrunken run, whose figures stand beside no published ones",
    "precision": 'of the networks\' matrix products: "float32" or "bfloat16"',
    "parallel": 'over several devices: "jit" splits batches and banks, "pmap" keeps replicas',
    "checkpoint_every": "steps between two checkpoints of a fit",
    "plateau": "a phase ends early when its loss has been flat over this fraction of its schedule's steps; 0: never",
    "data.name": "the data set, see docs/data.md",
    "data.root": "its folder, as published or prepared",
    "data.category": 'one category, several with commas, or "all"',
    "data.batch_size": "images of a batch",
    "data.workers": "processes that read images ahead; 0: none",
    "data.resize": "size after the resize: one integer or (height, width); 0: off",
    "data.crop": "size of the centre crop after the resize: one integer or (height, width); 0: off",
    "data.tile": "size of the tiles that go through the network: one integer or (height, width); 0: off",
    "data.tile_overlap": "part of a tile that the next one repeats, in [0, 1)",
    "data.resize_side": 'side that one integer means: "both", "shorter", or "auto" (shorter with a crop)',
    "data.interpolation": 'of images: "bilinear", "bicubic" or "lanczos"; masks take the nearest neighbour',
    "data.crop_multiple": "crop from the top left to the largest multiple of this; 0: off",
    "data.feature_cache_bytes": "features of training images that are kept between epochs; 0: none",
    "data.value_range": 'value that becomes 1.0 in files of more than 8 bits: a number, or "auto" by their type',
    "data.channels": 'channels that become red, green and blue: (0, 1, 2), (0,) or "auto"',
    "data.max_pixels": "images with more pixels are refused; 0: no limit",
    "data.normal": "of the data set `folder`: a folder of normal images",
    "data.abnormal": "of the data set `folder`: a folder of anomalous images",
    "data.masks": "of the data set `folder`: the folder of their masks",
    "data.test_fraction": "of the data set `folder`: normal images that are kept for the test, if none are given",
    "data.mask_threshold": 'of the data set `folder`: values of a mask above this number mark a defect; or "auto"',
    "backbone.name": "the frozen network",
    "backbone.weights": 'its weights: a safetensors file, a Hub tag, "random", or its own default if empty',
    "detector.name": "the detector",
    "protocol.name": "unsupervised, multi_class, few_shot, noisy, supervised, zero_shot, continual or transfer",
    "protocol.num_shots": "few_shot, transfer: normal images per category",
    "protocol.shots_by_name": "few_shot, transfer: the shots are the first images by name instead of drawn ones",
    "protocol.rotations": "few_shot, transfer: copies of each shot, rotated by equal steps; 1: none",
    "protocol.num_anomalies": "supervised: labelled anomalous images per category",
    "protocol.defect": 'supervised: the one kind of defect that is known; "" is all',
    "protocol.noise_ratio": "noisy: anomalous images that pass for normal, as a fraction of the training images",
    "protocol.keep_in_test": "noisy: whether those images stay in the test as well",
    "protocol.test_batch": "zero_shot: whether the detector is fitted on the unlabelled test images",
    "protocol.source": "transfer: the categories that are fitted before; zero_shot: the data set to train on, "
    "NAME or NAME:CATEGORIES",
    "protocol.source_root": "zero_shot: the folder of that data set",
    "evaluate.pixel": "whether pixel metrics are computed",
    "evaluate.eval_size": "side of maps and masks for pixel metrics; 0: the masks' own size",
    "evaluate.map_sigma": "Gaussian that smooths maps at the original resolution, in pixels; 0: off",
    "evaluate.save_maps": "whether every map is written as a TIFF",
    "evaluate.byte_budget": "bytes of maps that are held for exact pixel metrics; above it they are streamed, with bounds",
    "threshold.name": "rule from held-out normal images: quantile, k_sigma, extreme_value, target_fpr; or a_contrario",
    "threshold.holdout": "fraction of the normal training images that is held out for it; 0: no threshold",
    "threshold.quantile": "quantile: of the scores",
    "threshold.num_sigmas": "k_sigma: standard deviations above the mean",
    "threshold.fpr": "target_fpr, extreme_value: fraction of normal images that may pass the threshold",
    "threshold.tail_fraction": "extreme_value: fraction of the largest scores that the tail is fitted to",
    "threshold.false_alarms": "a_contrario: false alarms that are expected in a normal image",
}
"""{key with dots: what it is}; the options of a detector stand in the docstring of its factory."""


def option_lines(detector: str) -> dict[str, str]:
    """{option: its line} of a detector, from the Args of its factory's docstring: the first sentence, all of a shared one."""
    text = inspect.getdoc(detectors.factory(detector)) or ""
    entries = re.split(r"\n  (?=\w[\w, ]*: )", "\n" + text.partition("Args:\n")[2].partition("\n\n")[0])
    found = {}
    for entry in entries[1:]:
        names, _, line = " ".join(entry.split()).partition(": ")
        first = re.split(r"(?<=[a-z0-9)\]\"'`])\. (?=[A-Z`])", line)[0].rstrip(".")
        for name in names.split(", "):
            # a line of several options says them all, because it is about them together
            found[name] = first if name == names else f"({names}) {line.rstrip('.')}"
    return found


def describe(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(key with dots, value, its line) of every key of a config, in its order.

    Raises:
      KeyError: a key has no line.
    """
    options = option_lines(config["detector"]["name"])
    for key, value in _leaves("", config):
        section, _, name = key.partition(".")
        if section == "networks":
            line = f"of the frozen network {name.partition('.')[0]}: " + KEYS[f"backbone.{name.rpartition('.')[2]}"]
        elif section == "detector" and name != "name":
            line = options[name]
        else:
            line = KEYS[key]
        yield key, value, line


def listing(config: Mapping[str, Any], width: int = 120) -> str:
    """Every key of a config with its value and, below, its line."""
    lines = []
    for key, value, line in describe(config):
        # as it would be written on a command line
        shown = value if isinstance(value, str) and value else repr(value)
        indent = " " * 6
        lines += [f"  {key} = {shown}", textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)]
    return "\n".join(lines)


def _leaves(prefix: str, group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in group:
        name = f"{prefix}.{key}".lstrip(".")
        if hasattr(group[key], "keys"):
            yield from _leaves(name, group[key])
        else:
            yield name, group[key]
