"""What a sweep consists of: its configs, categories and seeds, checked before any work."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iadjax import config as configs
from iadjax import data
from iadjax.config import load_config, override
from iadjax.errors import UserError
from iadjax.experiment import places

__all__ = ["Job", "Plan", "config_of", "jobs", "make_plan", "parse_seeds"]


class Job(NamedTuple):
    """One run of a sweep: its config by label, its category (several with commas where one model is for all), its seed."""

    label: str
    category: str
    seed: int

    @property
    def path(self) -> Path:
        """Its place below `DIR/runs` and `DIR/jobs`."""
        return Path(self.label, re.sub(r"[^\w.-]+", "_", self.category) if len(self.category) < 100 else "all", str(self.seed))

    def __str__(self) -> str:
        return f"{self.label} {self.category} seed {self.seed}"


class Plan(NamedTuple):
    """What a sweep does.

    Attributes:
      configs: by label: {"name": as given, "config": resolved, "categories": names, "by_category": {category: {key: value}}};
        the last are the keys with dots that the config file sets otherwise for a category.
      seeds: of every config and category.
      search: None, or what `sweep.search` does first.
    """

    configs: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    search: dict[str, Any] | None = None


def make_plan(
    names: Sequence[str], categories: str, seeds: str, overrides: Mapping[str, str], search: dict[str, Any] | None = None
) -> Plan:
    """The plan of the flags; configs, data sets and categories are checked, and nothing is written.

    Args:
      names: of configs, as `load_config` takes them.
      categories: names with commas, "all", or "" for those of each config.
      seeds: a number of seeds from 0, or a list with commas.
      overrides: text by dotted key, for all configs.
      search: of `sweep.space.read_space`, with the other options of the search.

    Raises:
      UserError: there is no such config, data set or category.
    """
    if not names:
        raise UserError("a sweep needs at least one --config=FILE.py[:ARGUMENT]")
    if len(set(names)) < len(names):
        raise UserError(f"--config={next(n for n in names if names.count(n) > 1)} is given twice; give each config once")
    numbers, found = parse_seeds(seeds), {}
    for name in names:
        try:
            config = places.absolute(configs.resolve(override(load_config(name), overrides)))
            if config["protocol"]["name"] in data.SEQUENCES:
                raise UserError("it is a sequence of fits, which scripts/train.py runs; leave it out")
            chosen = _categories(config, categories)
            own = {category: _settings(name, overrides, config, category) for category in chosen}
            # the same from a checkout and from anywhere
            entry = {
                "name": name.removeprefix("configs/"),
                "config": config,
                "categories": chosen,
                "by_category": {k: v for k, v in own.items() if v},
            }
            for category in chosen:
                each = config_of(Plan({"": entry}, numbers), Job("", category, numbers[0]))
                configs.outline_model(each)
                configs.build_data(each)
        except UserError as error:
            raise UserError(f"--config={name}: {error}") from error
        found[_label(name, found)] = entry
    return Plan(found, numbers, search)


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "3" -> (0, 1, 2); "4,7" -> (4, 7); "4," -> (4,)."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words) or (words == [text] and int(text) < 1):
        raise UserError(f"--seeds takes a number of seeds, like 3, or a list with commas, like 0,5,7; got {text!r}")
    seeds = tuple(range(int(text))) if words == [text.strip()] else tuple(map(int, words))
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text} names a seed twice")
    return seeds


def _categories(config: dict[str, Any], asked: str) -> list[str]:
    """The values of `data.category` of a config's runs."""
    own = config["data"]["category"]
    together = config["protocol"]["name"] == "multi_class"
    asked = asked or own or "all"
    if asked != "all":
        names = [name.strip() for name in asked.split(",") if name.strip()]
        if len(set(names)) < len(names):
            raise UserError(f"--categories={asked} names a category twice")
        if together or len(names) > 1 or own == names[0]:
            return [",".join(names)] if together else names

    def known(category: str) -> tuple[str, ...]:
        return data.load(**configs.source_options(_with(config, category, 0)), seed=0).categories

    if asked == "all":
        names = known("all")
        return ["all"] if together else list(names) if len(names) > 1 else [own or "all"]
    try:
        known(asked)
    except UserError:
        # images of one category without a folder for it know its name, but not as a choice
        with contextlib.suppress(UserError):
            if known("all") == (asked,):
                return ["all"]
        raise
    return [asked]


def _settings(name: str, overrides: Mapping[str, str], config: dict[str, Any], category: str) -> dict[str, Any]:
    """The keys with dots that a config file sets otherwise when its argument names the category."""
    if config["data"]["category"] == category or config["protocol"]["name"] == "multi_class":
        return {}
    try:
        loaded = load_config(f"{name},category={category}" if ".py:" in name else f"{name}:category={category}")
        found = places.absolute(configs.resolve(override(loaded, overrides)))
    except Exception:  # a file of one's own may take other arguments, or none
        return {}
    if (found["data"]["name"], found["data"]["category"]) != (config["data"]["name"], category):
        return {}
    now, flat = dict(_leaves("", config)), dict(_leaves("", found))
    return {key: value for key, value in flat.items() if now.get(key) != value and key != "data.category"}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, each in value.items():
        yield from _leaves(f"{name}.{key}".lstrip("."), each)


def _with(config: dict[str, Any], category: str, seed: int) -> dict[str, Any]:
    return {**config, "seed": seed, "data": {**config["data"], "category": category}}


def _label(name: str, taken: Mapping[str, Any]) -> str:
    """A short name of a config for folders and tables: "unsupervised-patchcore-mvtec_ad"."""
    file, _, argument = name.partition(".py")
    words = [*Path(file).parts[-2:], *re.findall(r"[\w.=]+", argument)]
    label = "-".join(re.sub(r"[^\w.-]+", "_", word) for word in words if word != os.sep) or "config"
    number = sum(each == label or re.fullmatch(rf"{re.escape(label)}-\d+", each) is not None for each in taken)
    return f"{label}-{number + 1}" if number else label


def jobs(plan: Plan) -> list[Job]:
    """All runs of a plan; every config has its first seed before one has its second."""
    return [
        Job(label, category, seed)
        for seed in plan.seeds
        for label, each in plan.configs.items()
        for category in each["categories"]
    ]


def config_of(plan: Plan, job: Job, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resolved config of a run; `options`: other values by dotted key, of a search."""
    entry = plan.configs[job.label]
    config = _with(entry["config"], job.category, job.seed)
    for key, value in {**entry["by_category"].get(job.category, {}), **(options or {})}.items():
        *groups, last = key.split(".")
        node = config = {**config}
        for group in groups:
            node[group] = dict(node[group])
            node = node[group]
        node[last] = value
    return configs.resolve(config)
