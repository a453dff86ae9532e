"""Scores of any images, without a data set."""

from pathlib import Path

from iadjax import files, progress, report
from iadjax.data.images import SUFFIXES
from iadjax.errors import UserError
from iadjax.experiment.evaluate import write_scores
from iadjax.experiment.run import Run
from iadjax.export import Exported

__all__ = ["predict_files"]


def predict_files(run: Run | Exported, source: str | Path, output: str | Path) -> int:
    """Writes `scores.csv` and one overlay per image to `output`.

    Args:
      run: a fitted run, or an exported one.
      source: an image, or a folder that is searched for images.
      output: a directory; overlays go to `overlays/` under it, by the images' relative paths.

    Returns:
      The number of images.

    Raises:
      UserError: no images, or one that cannot be read (named).
    """
    source, output = files.place(source), files.place(output)
    if not source.exists():
        raise UserError(f"there is no file or folder {source}; give one with --input")
    root = source if source.is_dir() else source.parent
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
    if not found:
        raise UserError(f"{source} holds no images ({', '.join(sorted(SUFFIXES))})")
    rows, maps = [], []
    with progress.track("predict", len(found), "image") as done:
        # one at a time bounds the memory, and lets sizes differ
        for count, path in enumerate(found, start=1):
            prediction = run.predict([path])
            score = float(prediction.score[0])
            decision = [] if run.threshold is None else [int(score >= run.threshold["value"])]
            rows.append([path.relative_to(root).as_posix(), score, *decision])
            maps += [] if prediction.map is None else list(prediction.map)
            done(count, len(found))
    low, high = report.color_range(maps) if maps else (0.0, 1.0)
    # without maps there are no overlays
    for row, path, anomaly_map in zip(rows, found, maps, strict=False):
        picture = report.overlay(run.transform.read(path), run.transform, anomaly_map, low, high)
        with files.replacing(output / "overlays" / f"{row[0]}.png") as temporary:
            picture.save(temporary, format="PNG")
    write_scores(output / "scores.csv", rows, ["path", "score"] + ["anomalous"] * (run.threshold is not None))
    return len(found)
