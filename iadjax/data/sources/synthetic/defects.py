"""Defects of several categories. Each function takes `(rng, image, where)` and returns the image and the region it changed.

`where` is the coverage of the part `[SIZE, SIZE]` in [0, 1]; a defect stays inside it.
"""

import numpy as np

from iadjax.data.sources.synthetic.canvas import SIZE, XY, blend, blob, color, curve, edge, noise

__all__ = ["contamination", "crack", "hole", "position", "scratch", "stain", "swap"]


def position(rng: np.random.Generator, where: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """A random point (x, y) of the part, not nearer than `margin` to the border of the canvas."""
    inside = (where > 0.9) & (np.abs(XY).max(axis=-1) < 1 - margin)
    row, column = np.argwhere(inside)[rng.integers(inside.sum())]
    return XY[row, column].astype(np.float64)


def _paint(image, paint, coverage, where):
    coverage = coverage * where
    return blend(image, paint, coverage), coverage > 0.3


def scratch(rng: np.random.Generator, image: np.ndarray, where: np.ndarray):
    """A thin, nearly straight line, lighter than the surface, with a dark side."""
    distance = curve(rng, position(rng, where), rng.uniform(0.5, 1.0), rng.uniform(0.022, 0.038), 0.08)
    image, region = _paint(image, 0.25 * image, 0.8 * edge(distance - 0.012, 2), where)
    image, core = _paint(image, np.clip(image + 0.45, 0, 1), edge(distance, 1.5), where)
    return image, region | core


def crack(rng: np.random.Generator, image: np.ndarray, where: np.ndarray):
    """A thin dark line that wanders."""
    distance = curve(rng, position(rng, where), rng.uniform(0.7, 1.3), rng.uniform(0.024, 0.044), 0.7, steps=18)
    return _paint(image, 0.12 * image, 0.92 * edge(distance, 1.5), where)


def hole(rng: np.random.Generator, image: np.ndarray, where: np.ndarray):
    """A dark pit with a ragged border and a lit lower edge."""
    center, radius = position(rng, where, 0.2), rng.uniform(0.06, 0.12)
    rough = blob(rng, center, radius, 0.2)
    image, rim = _paint(image, np.clip(1.5 * image, 0, 1), 0.6 * edge(rough - 0.02, 2), where)
    image, pit = _paint(image, color(14, 12, 12) + 0.06 * image, edge(rough, 2), where)
    return image, rim | pit


def stain(rng: np.random.Generator, image: np.ndarray, where: np.ndarray):
    """A translucent patch of another colour, darker at its border, as a dried liquid leaves it."""
    tints = (color(120, 40, 30), color(35, 45, 95), color(30, 25, 20), color(60, 90, 40))
    tint = tints[rng.integers(len(tints))]
    distance = blob(rng, position(rng, where, 0.25), rng.uniform(0.12, 0.22))
    border = np.exp(-((distance / 0.03) ** 2))
    coverage = edge(distance, 4) * np.clip(0.5 + 0.08 * noise(rng, 10, 2) + 0.2 * border, 0, 0.9)
    return _paint(image, tint, coverage, where)


def contamination(rng: np.random.Generator, image: np.ndarray, where: np.ndarray):
    """A few crumbs of foreign matter with a highlight and a shadow."""
    region = np.zeros((SIZE, SIZE), bool)
    center = position(rng, where, 0.25)
    shades = (color(235, 232, 225), color(30, 28, 26), color(170, 60, 30))
    shade = shades[rng.integers(len(shades))]
    for _ in range(rng.integers(2, 5)):
        spot = center + rng.uniform(-0.12, 0.12, 2)
        distance = blob(rng, spot, rng.uniform(0.03, 0.065), 0.35)
        shifted = np.roll(distance, (3, 3), axis=(0, 1))
        image, shadow = _paint(image, 0.3 * image, 0.6 * edge(shifted, 3), where)
        shaded = np.clip(shade * (1 - 0.9 * (distance / 0.06 + XY[..., 1] - spot[1]))[..., None], 0, 1)
        image, crumb = _paint(image, shaded, edge(distance, 1.5), where)
        region |= shadow | crumb
    return image, region


def swap(image: np.ndarray, other: np.ndarray, coverage: np.ndarray):
    """Another picture shows through `coverage`: a missing, rotated or misprinted piece."""
    changed = blend(image, other, coverage)
    return changed, (np.abs(changed - image).max(axis=-1) > 0.03) & (coverage > 0.3)
