"""What `detectors.py` shows of a detector beside its figures: a strip of pictures, and the number of its parameters."""

import csv
import html
import re
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from iadjax import config as configs
from iadjax.config import load_config
from iadjax.detector import DataSpec

__all__ = ["parameters", "strip"]

SIDE = 112


def parameters(config: str) -> dict[str, int]:
    """Parameters of the frozen networks, and of those that the detector trains, in its config for one category of MVTec AD.

    Args:
      config: a file below configs/ that knows mvtec_ad.
    """
    resolved = configs.resolve(load_config(f"{config}:mvtec_ad,category=bottle").to_dict())
    model = configs.outline_model(resolved)
    shape = (*(model.transform.tile or model.transform.geometry(1024, 1024).size), 3)
    size = resolved["data"]["batch_size"]
    spec = DataSpec(209, shape, ("bottle",), 0, -(-209 // size), size)
    spec = configs.with_features(spec, model)
    state = jax.eval_shape(lambda key, frozen: model.detector.init(key, frozen, spec), jax.random.key(0), model.frozen)
    return {"frozen": _count(model.frozen), "trained": _count(state)}


def _count(tree: Any) -> int:
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return sum(leaf.size for path, leaf in found if any(getattr(part, "key", None) == "params" for part in path))


def strip(workdir: Path) -> Image.Image:
    """Of each category the anomalous image whose score is the median, with its map below, as the run's report has them."""
    with (workdir / "scores.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "1"]
    pictures = {}
    for page in sorted((workdir / "report").glob("*.html")):
        for source, path in re.findall(r'<img src="([^"]+-image\.jpg)"[^>]*alt="image of ([^"]+)"', page.read_text("utf-8")):
            pictures[html.unescape(path)] = workdir / "report" / source
    columns = []
    for category in sorted({row["category"] for row in rows}):
        shown = sorted((float(row["score"]), row["path"]) for row in rows if row["category"] == category)
        shown = [path for _, path in shown if path in pictures]
        columns.append(pictures[shown[len(shown) // 2]])
    sheet = Image.new("RGB", (len(columns) * (SIDE + 2) - 2, 2 * SIDE + 2), "white")
    for i, picture in enumerate(columns):
        overlay = picture.with_name(picture.name.replace("-image", "-overlay"))
        for j, each in enumerate((picture, overlay if overlay.is_file() else picture)):
            with Image.open(each) as opened:
                small = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (i * (SIDE + 2), j * (SIDE + 2)))
    return sheet
