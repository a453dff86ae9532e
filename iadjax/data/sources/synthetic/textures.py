"""Three textures: fabric, wood, granite. `draw(rng)` draws a normal surface; `DEFECTS` draw defects on it."""

import numpy as np

from iadjax.data.sources.synthetic import defects
from iadjax.data.sources.synthetic.canvas import XY, blend, blob, color, curve, disc, edge, noise, rotate

__all__ = ["FABRIC", "GRANITE", "WOOD"]


def _weave(rng: np.random.Generator, threads: float = 22.0) -> np.ndarray:
    """A plain weave: two crossing sets of rounded threads, alternately on top."""
    xy = rotate(XY, rng.normal(0, 0.02)) + rng.uniform(-0.1, 0.1, 2).astype(np.float32)
    xy = xy + 0.004 * np.stack([noise(rng, 3), noise(rng, 3)], axis=-1)
    u, v = xy[..., 0] * threads, xy[..., 1] * threads
    warp = np.sqrt(np.clip(1 - (2 * (u % 1) - 1) ** 2, 0, 1)) * (1 + 0.06 * np.sin(3.1 * np.floor(u)))
    weft = np.sqrt(np.clip(1 - (2 * (v % 1) - 1) ** 2, 0, 1)) * (1 + 0.06 * np.sin(2.3 * np.floor(v)))
    over = ((np.floor(u) + np.floor(v)) % 2)[..., None]
    bright = 1 + 0.05 * noise(rng, 60)[..., None]
    return bright * (over * warp[..., None] * color(86, 108, 142) + (1 - over) * weft[..., None] * color(64, 82, 116))


def fabric(rng: np.random.Generator):
    """A blue plain weave."""
    return color(24, 28, 38) + 0.9 * _weave(rng), np.ones(XY.shape[:2], np.float32)


def _loose_thread(rng, image, where):
    distance = curve(rng, defects.position(rng, where, 0.2), rng.uniform(0.6, 1.0), rng.uniform(0.035, 0.05), 0.55, steps=20)
    image = blend(image, 0.4 * image, 0.7 * edge(np.roll(distance, (3, 2), (0, 1)), 3))
    thread = color(168, 186, 214) * np.clip(1 - 8 * np.abs(distance + 0.02), 0.5, 1)[..., None]
    coverage = edge(distance, 1.5)
    return blend(image, thread, coverage), (coverage > 0.3) | (edge(np.roll(distance, (3, 2), (0, 1)), 3) > 0.3)


def _misweave(rng, image, where):
    del where
    center = rng.uniform(-0.55, 0.55, 2)
    patch = np.abs(rotate(XY, rng.uniform(-0.15, 0.15), center)) - np.array([rng.uniform(0.14, 0.25), rng.uniform(0.1, 0.16)])
    coverage = edge(patch.max(axis=-1), 2).astype(np.float32)
    other = color(24, 28, 38) + 0.9 * _weave(rng, threads=13.0)
    return blend(image, other, coverage), coverage > 0.3


def wood(rng: np.random.Generator):
    """Planed wood: growth rings cut lengthwise, fine pores along the grain."""
    x, y = XY[..., 0], XY[..., 1]
    bend = 0.22 * noise(rng, (1.5, 2.5)) + 0.03 * noise(rng, (3, 12), 2)
    rings = np.sin(2 * np.pi * (5.5 * x + bend + 0.1 * rng.normal() * y))
    pores = noise(rng, (90, 5))
    tone = 0.5 + 0.2 * rings + 0.09 * pores + 0.05 * noise(rng, (30, 2))
    image = color(136, 90, 52) + tone[..., None] * (color(214, 168, 116) - color(136, 90, 52))
    return image, np.ones(XY.shape[:2], np.float32)


def _drilled(rng, image, where):
    region = np.zeros(XY.shape[:2], bool)
    for _ in range(rng.integers(2, 5)):
        distance = disc(XY, defects.position(rng, where, 0.15), rng.uniform(0.035, 0.055))
        image = blend(image, 1.25 * image, 0.8 * edge(distance - 0.015, 2))
        image = blend(image, color(30, 18, 10), edge(distance, 1.5))
        region |= edge(distance - 0.015, 2) > 0.3
    return image, region


def granite(rng: np.random.Generator):
    """Polished stone: grains of three minerals at two sizes."""
    coarse, fine, dark = noise(rng, 34, 2), noise(rng, 90), noise(rng, 56, 2)
    image = color(168, 160, 154) + 0.06 * fine[..., None]
    image = blend(image, color(196, 170, 156), np.clip(1.4 * (coarse - 0.55), 0, 1))
    image = blend(image, color(58, 56, 60), np.clip(2.2 * (dark - 0.95), 0, 1))
    return image, np.ones(XY.shape[:2], np.float32)


def _glue(rng, image, where):
    distance = blob(rng, defects.position(rng, where, 0.3), rng.uniform(0.16, 0.24), 0.2)
    coverage = edge(distance, 4) * where
    smooth = color(214, 202, 168) + 0.25 * np.clip(-distance / 0.2, 0, 1)[..., None]
    image = blend(image, smooth, 0.62 * coverage)
    return image, coverage > 0.3


def _chip(rng, image, where):
    center = defects.position(rng, where, 0.25)
    distance = blob(rng, center, rng.uniform(0.1, 0.17), 0.35)
    facet = 0.5 + 0.5 * np.tanh(9 * (rotate(XY, rng.uniform(0, 6.28), center)[..., 0] + 0.03 * noise(rng, 24)))
    rough = color(235, 230, 224) * (0.55 + 0.45 * facet)[..., None]
    coverage = edge(distance, 2) * where
    return blend(image, rough, 0.9 * coverage), coverage > 0.3


FABRIC = fabric, {"hole": defects.hole, "loose_thread": _loose_thread, "misweave": _misweave, "stain": defects.stain}
WOOD = wood, {"drilled": _drilled, "scratch": defects.scratch, "stain": defects.stain, "crack": defects.crack}
GRANITE = granite, {"crack": defects.crack, "glue": _glue, "chip": _chip}
