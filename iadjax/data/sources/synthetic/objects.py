"""Three objects: washer, capsule, circuit. `draw(rng)` draws a normal part and its coverage; `DEFECTS` draw defects on it."""

import numpy as np

from iadjax.data.sources.synthetic import defects
from iadjax.data.sources.synthetic.canvas import XY, blend, blob, color, disc, edge, noise, rotate, segment

__all__ = ["CAPSULE", "CIRCUIT", "WASHER"]


def washer(rng: np.random.Generator):
    """A turned steel washer on a dark tray."""
    center = rng.normal(0, 0.02, 2)
    x, y = XY[..., 0] - center[0], XY[..., 1] - center[1]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    cover = edge(np.maximum(radius - 0.78, 0.36 - radius), 1.5).astype(np.float32)
    turning = np.interp(radius.ravel(), np.linspace(0, 1.5, 300), rng.standard_normal(300)).reshape(radius.shape)
    gloss = 0.16 * np.cos(2 * (angle - 0.7)) + 0.07 * np.cos(4 * angle + 0.5)
    bevel = np.clip((radius - 0.72) / 0.06, 0, 1) - np.clip((0.42 - radius) / 0.06, 0, 1)
    steel = color(158, 162, 168) * (1 + gloss + 0.025 * turning - 0.25 * np.abs(bevel))[..., None]
    tray = color(38, 42, 50) * (1 + 0.06 * noise(rng, 60))[..., None]
    shadow = 0.5 * edge(np.maximum(np.hypot(x - 0.03, y - 0.04) - 0.8, 0.34 - np.hypot(x - 0.03, y - 0.04)), 10)
    return blend(blend(tray, 0.3 * tray, shadow), steel, cover), cover


def _rust(rng, image, where):
    distance = blob(rng, defects.position(rng, where), rng.uniform(0.13, 0.22), 0.3)
    flakes = np.clip(0.75 + 0.25 * noise(rng, 30, 2), 0, 1)
    paint = blend(np.broadcast_to(color(122, 58, 24), image.shape), color(64, 30, 18), np.clip(noise(rng, 26, 2), 0, 1))
    coverage = edge(distance, 6) * where
    return blend(image, paint, coverage * flakes), coverage > 0.3


def _notch(rng, image, where):
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.choice([0.36, 0.78])
    distance = blob(rng, radius * np.array([np.cos(angle), np.sin(angle)]), rng.uniform(0.09, 0.14), 0.2)
    coverage = edge(distance, 2) * where
    image = blend(image, 1.35 * image, 0.5 * edge(distance - 0.02, 3) * where)
    return blend(image, color(34, 37, 44), coverage), edge(distance - 0.02, 3) * where > 0.3


def capsule(rng: np.random.Generator):
    """A two-coloured gelatine capsule with a printed mark on a pale belt."""
    xy = rotate(XY, rng.normal(0, 0.06), rng.normal(0, 0.02, 2))
    distance = segment(xy, (-0.48, 0), (0.48, 0), 0.62)
    cover = edge(distance, 1.5).astype(np.float32)
    belt = color(206, 208, 204) * (1 + 0.02 * noise(rng, 80) + 0.02 * noise(rng, 4))[..., None]
    image = blend(belt, 0.55 * belt, 0.7 * edge(segment(xy, (-0.45, 0.07), (0.51, 0.07), 0.62), 22))
    left = edge(xy[..., 0] - 0.04, 1.5)
    shell = blend(np.broadcast_to(color(196, 52, 44), image.shape), color(238, 204, 84), left)
    shell = blend(shell, 0.72 * shell, np.exp(-(((xy[..., 0] - 0.05) / 0.012) ** 2)))
    round_ = np.sqrt(np.clip(1 - (distance / 0.31 + 1) ** 2, 0, 1))
    shine = np.exp(-(((xy[..., 1] + 0.14) / 0.045) ** 2)) * edge(np.abs(xy[..., 0]) - 0.46, 18)
    shell = shell * (0.55 + 0.45 * round_)[..., None] + 0.38 * shine[..., None]
    mark = np.minimum(segment(xy, (-0.42, 0.04), (-0.42, 0.16), 0.035), np.abs(disc(xy, (-0.28, 0.1), 0.055)) - 0.016)
    mark = np.minimum(mark, segment(xy, (-0.16, 0.04), (-0.1, 0.16), 0.035))
    shell = blend(shell, color(40, 36, 40), 0.85 * edge(mark, 1.5))
    return blend(image, shell, cover), cover


def _wrong_color(rng, image, where):
    # the yellow half or the red one, whichever a random point of the part lies on
    yellow = (image[..., 1] > 1.6 * image[..., 2]) & (image[..., 1] > 0.55 * image[..., 0])
    red = (image[..., 0] > 2 * image[..., 1]) & ~yellow
    row, column = np.argwhere((yellow | red) & (where > 0.9))[rng.integers(((yellow | red) & (where > 0.9)).sum())]
    half = np.where(yellow[row, column], yellow, red) * where
    return blend(image, image[..., [2, 1, 0]] * np.float32(0.9), half), half > 0.3


def _dent(rng, image, where):
    center = defects.position(rng, where, 0.3)
    local = rotate(XY, rng.uniform(0, 6.28), center)
    radius = rng.uniform(0.13, 0.2)
    bowl = np.exp(-((local**2).sum(axis=-1)) / (0.5 * radius**2)) * where
    shade = np.clip(local[..., 0] / radius, -1, 1) * bowl
    return np.clip(image * (1 - 0.5 * bowl + 0.9 * shade)[..., None], 0, 1.1), (bowl > 0.25) & (where > 0.5)


_PARTS = (
    (-0.5, -0.5, 0.2, 0.1),
    (-0.5, -0.1, 0.2, 0.1),
    (0.45, 0.52, 0.11, 0.2),
    (0.1, 0.55, 0.11, 0.2),
    (-0.42, 0.5, 0.17, 0.17),
)


def _board(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The bare board, with tracks and pads, and its coordinates."""
    xy = rotate(XY, rng.normal(0, 0.012), rng.normal(0, 0.012, 2))
    image = color(24, 92, 58) * (1 + 0.04 * noise(rng, 70) + 0.03 * noise(rng, 3))[..., None]
    tracks = np.full(xy.shape[:2], np.inf, np.float32)
    for start, middle, end in (
        ((-0.3, -0.5), (0.05, -0.5), (0.2, -0.35)),
        ((-0.3, -0.1), (0.0, -0.1), (0.15, -0.1)),
        ((-0.25, 0.5), (-0.1, 0.3), (0.3, 0.1)),
        ((0.45, 0.3), (0.45, 0.2), (0.45, 0.1)),
        ((0.1, 0.33), (0.3, 0.2), (0.38, 0.1)),
        ((-0.85, -0.8), (-0.85, 0.2), (-0.6, 0.45)),
        ((-0.8, 0.85), (0.2, 0.85), (0.85, 0.85)),
        ((0.85, -0.75), (0.85, 0.1), (0.85, 0.7)),
    ):
        tracks = np.minimum(tracks, np.minimum(segment(xy, start, middle, 0.035), segment(xy, middle, end, 0.035)))
    image = blend(image, color(48, 134, 84), edge(tracks, 1.5))
    for hole in ((-0.85, -0.85), (0.85, -0.85), (-0.85, 0.88), (0.85, 0.88)):
        image = blend(image, color(206, 174, 92), edge(disc(xy, hole, 0.075), 1.5))
        image = blend(image, color(22, 24, 24), edge(disc(xy, hole, 0.042), 1.5))
    return image, xy


def _box(xy, x, y, half_width, half_height):
    return np.maximum(np.abs(xy[..., 0] - x) - half_width, np.abs(xy[..., 1] - y) - half_height)


def _mount(image: np.ndarray, xy: np.ndarray, part: int, angle: float = 0.0) -> np.ndarray:
    """One resistor or capacitor, rotated by `angle` radians about its centre."""
    x, y, width, height = _PARTS[part]
    local = rotate(xy, angle, (x, y))
    if part == 4:
        image = blend(image, color(54, 58, 72), edge(disc(local, (0, 0), 0.18), 1.5))
        image = blend(image, color(176, 180, 188), edge(disc(local, (0, 0), 0.145), 1.5))
        return blend(image, color(54, 58, 72), edge(np.maximum(disc(local, (0, 0), 0.145), local[..., 0] + 0.08), 1.5))
    image = blend(image, color(200, 202, 206), edge(_box(local, 0, 0, width, height), 1.5))
    inner = (0.62 * width, height) if width > height else (width, 0.62 * height)
    return blend(image, color(34, 30, 32) if part < 2 else color(168, 128, 84), edge(_box(local, 0, 0, *inner), 1.5))


def _chip(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The integrated circuit with its legs."""
    for i in range(6):
        x = 0.2 + 0.1 * i
        for y in (-0.5, 0.02):
            image = blend(image, color(190, 192, 196), edge(_box(xy, x, y, 0.025, 0.09), 1.5))
    image = blend(image, color(30, 31, 34), edge(_box(xy, 0.45, -0.24, 0.33, 0.22), 1.5))
    return blend(image, color(88, 90, 94), edge(disc(xy, (0.2, -0.38), 0.03), 1.5))


def circuit(rng: np.random.Generator):
    """A green circuit board with a chip, resistors and capacitors."""
    image, xy = _board(rng)
    for part in range(len(_PARTS)):
        image = _mount(image, xy, part)
    return _chip(image, xy), np.ones(XY.shape[:2], np.float32)


def _around(part: int) -> np.ndarray:
    x, y, width, height = _PARTS[part]
    reach = np.hypot(width, height) + 0.05
    return edge(_box(XY, x, y, reach, reach), 2).astype(np.float32)


def _same_part(rng: np.random.Generator) -> np.random.Generator:
    """A generator that repeats the same stream, so that it draws the same board again."""
    return np.random.default_rng(rng.bit_generator.seed_seq)


def _missing_part(rng, image, where):
    del where
    bare, _ = _board(_same_part(rng))
    return defects.swap(image, bare, _around(int(rng.integers(len(_PARTS)))))


def _turned_part(rng, image, where):
    del where
    part = int(rng.integers(4))
    board, xy = _board(_same_part(rng))
    rotated = _mount(board, xy, part, angle=rng.choice([-1, 1]) * rng.uniform(0.35, 0.9))
    return defects.swap(image, rotated, _around(part))


def _solder_bridge(rng, image, where):
    x, y = 0.2 + 0.1 * rng.integers(5), rng.choice([-0.54, 0.06])
    distance = segment(XY, (x, y), (x + 0.1, y + rng.normal(0, 0.01)), rng.uniform(0.07, 0.1))
    shine = np.clip(0.75 - 9 * (XY[..., 1] - y + 0.01), 0.45, 1.15)[..., None]
    coverage = edge(distance, 1.5) * where
    return blend(image, color(204, 206, 212) * shine, coverage), coverage > 0.3


WASHER = washer, {"scratch": defects.scratch, "notch": _notch, "rust": _rust, "contamination": defects.contamination}
CAPSULE = capsule, {"crack": defects.crack, "wrong_color": _wrong_color, "dent": _dent, "contamination": defects.contamination}
CIRCUIT = (
    circuit,
    {"missing_part": _missing_part, "turned_part": _turned_part, "solder_bridge": _solder_bridge, "scratch": defects.scratch},
)
