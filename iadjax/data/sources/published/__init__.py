"""Published data sets, each read from the folders as they are published; a module is imported when it is asked for.

A module holds:

  its docstring   the card: layout, masks, split, counts, licence, citation, address, and what could not be checked
  CATEGORIES      the published names
  COUNTS          {data set: {category: {part: images}}}; the parts are those of `common.PARTS`, unpublished ones are left out
  index           `(name, root, category) -> Dataset`
  read            `item -> (image, mask)`, the `Dataset.read` of every index; its keyword `image` reads an image file
  points          `item -> xyz`, of RGB-D sets alone
  SIDE_FILES      further files that belong to a category, relative to the root, like "{category}/defects_config.json"
"""

import importlib
from types import ModuleType

from iadjax.errors import UserError, did_you_mean

__all__ = ["MODULES", "module"]

MODULES = {
    "btad": "btad",
    "dagm": "dagm",
    "deeppcb": "deeppcb",
    "dtd": "dtd",
    "elpv": "elpv",
    "eyecandies": "eyecandies",
    "kolektor_sdd": "kolektor_sdd",
    "kolektor_sdd2": "kolektor_sdd2",
    "mpdd": "mpdd",
    "mtd": "mtd",
    "mtd_300": "mtd",
    "mvtec_3d_ad": "mvtec_3d_ad",
    "mvtec_ad": "mvtec_ad",
    "mvtec_ad_2": "mvtec_ad_2",
    "mvtec_ad_2_private": "mvtec_ad_2",
    "mvtec_loco": "mvtec_loco",
    "neu_det": "neu_det",
    "real_iad": "real_iad",
    "real_iad_256": "real_iad",
    "real_iad_512": "real_iad",
    "visa": "visa",
    "visa_2cls_fewshot": "visa",
    "visa_2cls_highshot": "visa",
}


def module(name: str) -> ModuleType:
    """The module of the data set `name`.

    Raises:
      UserError: there is none; the nearest names are listed.
    """
    if name not in MODULES:
        raise UserError(f"there is no published data set {name!r}; {did_you_mean(name, MODULES)}")
    return importlib.import_module(f"iadjax.data.sources.published.{MODULES[name]}")
