"""Runs of several sites as one, without their images (federated fitting)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iadjax import config as configs
from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment import checkpoint, places
from iadjax.experiment.checkpoint import Position
from iadjax.experiment.fit import check_workdir
from iadjax.experiment.run import Run
from iadjax.parallel import distributed, placement

__all__ = ["merge"]


def merge(runs: Sequence[Run], workdir: str | Path, weights: Sequence[float] | None = None) -> Run:
    """One run from fitted runs of the same detector on the images of several sites, see `Detector.merge`.

    Config, data and categories are those of the first run. It has no threshold, because that needs held-out normal images of
    all sites.

    Args:
      runs: fitted runs.
      workdir: a directory without a run; gets `config.json` and a checkpoint, so that `iadjax.load` reads it.
      weights: of the runs; by default their numbers of training images.

    Raises:
      UserError: the detector has no merge, or the runs differ in detector, input size or frozen weights.
    """
    first, workdir = runs[0], files.place(workdir)
    if first.detector.merge is None:
        raise UserError(f"runs of {first.config['detector']['name']} cannot be merged: the detector has no `merge`")
    for run in runs[1:]:
        same = ("detector", "precision")
        differing = [key for key in same if run.config[key] != first.config[key]]
        differing += ["input size"] if run.spec.image_shape != first.spec.image_shape else []
        hashes = [{name: each["hash"] for name, each in one.weights.items()} for one in (first, run)]
        differing += ["frozen weights"] if hashes[0] != hashes[1] else []
        if differing:
            raise UserError(f"{run.workdir} and {first.workdir} differ in {', '.join(differing)}; merge runs of one detector")
    given = np.array([run.spec.num_images for run in runs] if weights is None else weights, np.float64)
    if len(given) != len(runs) or np.any(given < 0) or given.sum() <= 0:
        raise UserError(f"merging {len(runs)} runs needs as many weights of at least 0, got {given.tolist()}")
    check_workdir(workdir, first.config, False)
    state = first.detector.merge([run.state for run in runs], given / given.sum())
    state = placement.place(first.devices, first.detector, state)
    spec = first.spec._replace(num_images=sum(run.spec.num_images for run in runs))
    if distributed.is_main():
        files.write_json(workdir / "config.json", first.config)
        for name, file in places.carried_weights(first.workdir, first.config).items():
            places.keep(workdir, name, file)
    position = Position(len(first.detector.phases(spec)), 0, 0, 0)
    identity = {"config": configs.fit_keys(first.config), "weights": first.weights, "carried": False}
    checkpoint.save(workdir / "checkpoints", state, position, identity, spec)
    return Run(first.config, workdir, first.model, state, spec, None, first.devices)
