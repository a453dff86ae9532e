"""Brushes of the synthetic images: noise, soft shapes and blending on a square canvas of coordinates in [-1, 1]."""

import numpy as np
from PIL import Image

__all__ = ["SIZE", "XY", "blend", "blob", "color", "curve", "disc", "edge", "light", "noise", "rotate", "segment"]

SIZE = 256
_AXIS = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
XY = np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1)
"""`[SIZE, SIZE, 2]`: x to the right, y down."""
_PIXEL = 2 / SIZE


def color(*rgb: int) -> np.ndarray:
    """An 8-bit colour as float32 in [0, 1]."""
    return np.array(rgb, np.float32) / 255


def noise(rng: np.random.Generator, cells: float | tuple[float, float], octaves: int = 1) -> np.ndarray:
    """Smooth noise of mean 0 and variance 1; `cells` knots (across, down) in the first octave, doubled for each further one."""
    across, down = cells if isinstance(cells, tuple) else (cells, cells)
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        shape = (int(np.ceil(down * 2**octave)) + 3, int(np.ceil(across * 2**octave)) + 3)
        knots = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        total += np.asarray(knots.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 2**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def edge(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Coverage in [0, 1] from a signed distance (negative inside), antialiased over `softness` pixels."""
    return np.clip(0.5 - distance / (softness * _PIXEL), 0, 1)


def rotate(xy: np.ndarray, angle: float, center=(0.0, 0.0)) -> np.ndarray:
    """Coordinates in a frame with its origin at `center`, rotated by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = xy[..., 0] - center[0], xy[..., 1] - center[1]
    return np.stack([cos * x + sin * y, -sin * x + cos * y], axis=-1).astype(np.float32)


def disc(xy: np.ndarray, center, radius: float) -> np.ndarray:
    """Signed distance to a disc."""
    return np.hypot(xy[..., 0] - center[0], xy[..., 1] - center[1]) - radius


def segment(xy: np.ndarray, start, end, width: float) -> np.ndarray:
    """Signed distance to a thick line with round ends."""
    start, end = np.asarray(start, np.float32), np.asarray(end, np.float32)
    along = end - start
    position = np.clip(((xy - start) @ along) / max(float(along @ along), 1e-9), 0, 1)
    return np.linalg.norm(xy - start - position[..., None] * along, axis=-1) - width / 2


def curve(rng: np.random.Generator, start, length: float, width: float, bend: float, steps: int = 12) -> np.ndarray:
    """Signed distance to a wandering line: `bend` radians of change of direction per step."""
    point, angle = np.asarray(start, np.float64), rng.uniform(0, 2 * np.pi)
    distance = np.full((SIZE, SIZE), np.inf, np.float32)
    for step in range(steps):
        # a line goes back at the border of the canvas
        if np.abs(point + length / steps * np.array([np.cos(angle), np.sin(angle)])).max() > 0.95:
            angle += np.pi / 2
        following = point + length / steps * np.array([np.cos(angle), np.sin(angle)])
        taper = width * (1 - 0.6 * abs(2 * step / steps - 1))
        distance = np.minimum(distance, segment(XY, point, following, taper))
        point, angle = following, angle + rng.normal(0, bend)
    return distance


def blob(rng: np.random.Generator, center, radius: float, roughness: float = 0.25) -> np.ndarray:
    """Approximate signed distance to an irregular patch."""
    x, y = XY[..., 0] - center[0], XY[..., 1] - center[1]
    angle = np.arctan2(y, x)
    wave = sum(rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7))
    return (np.hypot(x, y) - radius * (1 + roughness * wave)).astype(np.float32)


def blend(image: np.ndarray, paint: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """`paint` (a colour or an image) over the image where `coverage` `[SIZE, SIZE]` says."""
    return image + coverage[..., None] * (paint - image)


def light(rng: np.random.Generator, image: np.ndarray, strength: float = 0.06, grain: float = 0.012) -> np.ndarray:
    """Uneven light and sensor noise: what differs between two pictures of the same part."""
    uneven = 1 + strength * (rng.normal() * XY[..., 0] + rng.normal() * XY[..., 1] + 0.5 * rng.normal())
    return image * uneven[..., None] + grain * rng.standard_normal(image.shape).astype(np.float32)
