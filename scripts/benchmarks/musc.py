"""Memory and time of MuSc's mutual scores: every image of a set against every other one, without holding all pairs.

    python scripts/benchmarks/musc.py --json=results/musc_cpu.json     # half an hour on two cores; a GPU takes seconds
    python scripts/benchmarks/musc.py --degrees=3 --images=20

Tokens are random, with the shapes of ViT-L/14 at 518 pixels (37 x 37 of 1024 channels): values change neither time nor memory.
The network's own time is not in it. A product is that of all patches of one image with all of another one; it serves both.
"All pairs" is what a matrix of the distances between all patches of a layer would take, in float32.
"""

import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from iadjax import backbones, files
from iadjax.detector import DataSpec, embed_shapes
from iadjax.detectors.families.gallery import Gallery
from iadjax.detectors.zero_shot.musc import musc
from iadjax.experiment import cli, record

_IMAGES = flags.DEFINE_integer("images", 83, "Images of the set; 83 are those of MVTec AD's bottle.")
_LAYERS = flags.DEFINE_integer("layers", 4, "Layers whose tokens are compared, up to 4.")
_DEGREES = flags.DEFINE_list("degrees", ["1", "3", "5"], "Sides of the neighbourhoods.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

SIDE = 518


def peak_bytes() -> int:
    """The largest resident memory of this process, and on an accelerator what its allocator says."""
    stats = jax.local_devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(images: int, layers: int, degrees: tuple[int, ...]) -> dict[str, float]:
    """Seconds of the mutual scores, and bytes before and at their peak."""
    names = ("block6", "block12", "block18", "block24")[:layers]
    backbone = backbones.backbone("clip_vitl14_336_exact")
    detector = musc(backbone, layers=names, degrees=degrees)
    variables = jax.eval_shape(lambda: backbone.init(jax.random.key(0), (*names, "embedding")))
    shapes = embed_shapes(detector, {"backbone": variables}, (SIDE, SIDE, 3))
    rng = np.random.default_rng(0)

    def draw(leaf):
        # image by image, so that drawing takes no memory of its own
        rows = jnp.zeros((images, *leaf.shape[1:]))
        for i in range(images):
            rows = put(rows, rng.standard_normal(leaf.shape[1:], np.float32), i)
        return rows

    put = jax.jit(lambda rows, row, i: rows.at[i].set(row), donate_argnums=0)
    levels, descriptor = jax.tree.map(draw, shapes)
    descriptor = descriptor / jnp.linalg.norm(descriptor, axis=1, keepdims=True)
    state = jax.block_until_ready(Gallery(levels, descriptor, jnp.int32(images)))
    (phase,) = detector.phases(DataSpec(images, (SIDE, SIDE, 3), ("a",), features=shapes))
    before, start = peak_bytes(), time.perf_counter()
    jax.block_until_ready(phase.finalize(None, state, None))
    seconds = time.perf_counter() - start
    patches = levels[0].shape[1] * levels[0].shape[2]
    products = images * (images - 1) // 2 * layers * len(degrees)
    return {
        "images": images,
        "layers": layers,
        "degrees": list(degrees),
        "seconds": round(seconds, 1),
        "seconds_of_four_layers_and_three_degrees": round(seconds * 12 / (layers * len(degrees)), 1),
        "products": products,
        "gflops": round(2e-9 * products * patches**2 * levels[0].shape[3] / seconds, 1),
        "tokens_gib": round(sum(level.nbytes for level in levels) / 2**30, 2),
        "before_gib": round(before / 2**30, 2),
        "peak_gib": round(peak_bytes() / 2**30, 2),
        "all_pairs_gib": round(4 * (images * patches) ** 2 / 2**30, 1),
    }


def main() -> None:
    found = measure(_IMAGES.value, _LAYERS.value, tuple(int(degree) for degree in _DEGREES.value))
    print(json.dumps(found, indent=1))
    if _JSON.value:
        files.write_json(Path(_JSON.value), {"about": record.about(), "mutual_scores": found})


if __name__ == "__main__":
    cli.run(main)
