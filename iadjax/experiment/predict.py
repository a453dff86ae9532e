"""Scores of any images, without a data set, written as they come."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iadjax import files, progress, report
from iadjax.detector import Prediction
from iadjax.errors import UserError, did_you_mean
from iadjax.experiment import contours
from iadjax.experiment.beginning import begin
from iadjax.experiment.inputs import KINDS, Input, as_text, count, find, inputs
from iadjax.experiment.outputs import SKIPPED, Table, What, write_files
from iadjax.experiment.run import Run
from iadjax.export import Exported

__all__ = ["SKIPPED", "predict_files"]

# sizes of the network's input after which a line says what they cost
_MANY_SIZES = 5
# images that give colours to a run that has none
_SAMPLE = 8


def predict_files(
    run: Run | Exported,
    source: str | Path,
    output: str | Path,
    *,
    save: Sequence[str] = ("overlays",),
    overlay_size: int = 1024,
    pixel_threshold: float | None = None,
    on_error: str = "stop",
    resume: bool = False,
) -> int:
    """Scores images and writes `scores.csv` (`path,score,anomalous`) and the files of each image, one image after the other.

    A row is written after the files of its image. So a stopped call keeps what it has, and `resume` goes on after the last row.

    Args:
      run: a fitted run, or an exported one.
      source: an image, a video, a folder that is searched for images, or a pattern like "frames/*.png".
      output: a directory; it may lie in `source`, because results are no inputs.
      save: which files: "overlays" (PNG), "maps" (float32 TIFF), "masks" (PNG, 0 and 255), "contours" (JSON); in folders of
        these names, by the images' relative paths.
      overlay_size: the longer side of an overlay at most, in pixels; 0 = that of the image.
      pixel_threshold: for masks and contours; None: `pixel_value` of the run's threshold.
      on_error: "stop" at an image that cannot be read or scored, or "skip" it: it is listed in `skipped.csv` (`path,reason`).
      resume: continue an earlier call with the same arguments; `on_error` may differ. If there is none, begin.

    Returns:
      The number of images that `scores.csv` holds.

    Raises:
      UserError: no images, one that cannot be read (named), an output that holds something else, or an option that is wrong.
    """
    output = files.place(output)
    what = _checked(run, save, overlay_size, pixel_threshold, on_error)
    root, found = find(source, output)
    columns = ["path", "score"] + ["anomalous"] * (run.threshold is not None)
    with (
        Table(output / "scores.csv", columns, resume) as scores,
        Table(output / SKIPPED, ["path", "reason"], resume) as skipped,
    ):
        what = begin(run, source, output, what, lambda: _colours(run, what, root, found), found, resume)
        scores.write()
        sizes: set[tuple[int, int]] = set()
        number, total = len(scores.rows), count(root, found)
        rest = _after(inputs(root, found), scores.rows, skipped.rows, output)
        with progress.track("predict", total, "image") as report_done:
            for done, one in enumerate(rest, start=1 + number + len(skipped.rows)):
                try:
                    pixels, prediction = _predict(run, one, sizes)
                except UserError as error:
                    reason = as_text(str(error) if one.path in as_text(str(error)) else f"{one.path}: {error}")
                    if on_error == "stop":
                        raise UserError(
                            f"{reason}; {output} keeps the scores so far: go on with --resume, or past such images with "
                            "--resume --on_error=skip"
                        ) from error
                    progress.say(f"skipped: {reason}")
                    skipped.write([one.path, reason])
                else:
                    if prediction.map is not None and what.colours is not None:
                        write_files(output, one, pixels, run.transform, prediction.map[0], what)
                    scores.write(_row(run, one, prediction))
                    number += 1
                    # two images at a time would take twice the memory
                    del pixels
                report_done(done, total)
    if len(sizes) > 1:
        progress.say(f"images of {len(sizes)} sizes after data.resize and data.crop: the detector was compiled for each")
    return number


def _checked(run: Run | Exported, save: Sequence[str], overlay_size: int, pixel_threshold: float | None, on_error: str) -> What:
    """The options of `predict_files`; a UserError where one does not fit."""
    for kind in save:
        if kind not in KINDS:
            raise UserError(f"there is nothing to save that is called {kind!r}; {did_you_mean(kind, KINDS)}")
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error must be stop or skip, got {on_error!r}")
    if overlay_size < 0:
        raise UserError(f"overlay_size must be a number of pixels, or 0 for that of the image, got {overlay_size}")
    if isinstance(run, Run) and run.detector.inputs:
        raise UserError(
            f"this detector needs {', '.join(run.detector.inputs)} of every image, which image files do not hold; "
            "call Run.predict with extra={...}"
        )
    threshold = None
    if "masks" in save or "contours" in save:
        threshold = (run.threshold or {}).get("pixel_value") if pixel_threshold is None else float(pixel_threshold)
        if threshold is None:
            raise UserError(
                "masks and contours need a pixel threshold, and this run has none: give --pixel_threshold=VALUE, or fit it "
                "again with --config.threshold.holdout above 0"
            )
        if not np.isfinite(threshold):
            raise UserError(f"pixel_threshold must be a finite number, got {threshold}")
    if "contours" in save:
        contours.require()
    return What(tuple(kind for kind in KINDS if kind in save), overlay_size, None, threshold)


def _colours(run: Run | Exported, what: What, root: Path, found: list[str]) -> tuple[float, float] | None:
    """The range of the overlays: the run's, or for a run without one that of the maps of a few of these images."""
    if not what.save:
        return None
    colours = report.map_range(run.threshold)
    if colours is not None:
        return colours
    chosen = {found[i] for i in np.linspace(0, len(found) - 1, _SAMPLE).round().astype(int)}
    maps = []
    for file in [*sorted(chosen), *found]:
        try:
            maps.append(run.predict([run.read(next(inputs(root, [file])).read())]).map)
        except UserError:
            # it is named when its turn comes
            continue
        if len(maps) >= len(chosen):
            break
    maps = [each[0] for each in maps if each is not None]
    if maps:
        progress.say(
            "this run holds no range of colours (an earlier version, or no held-out images); that of "
            f"{len(maps)} of the images is taken; fit it again with threshold.holdout above 0 for colours that stay the same"
        )
        return report.color_range(maps)
    if set(what.save) - {"overlays"}:
        raise UserError(f"this detector gives no maps, which {', '.join(what.save)} need; leave --save empty")
    progress.say("this detector gives no maps, so there are no overlays")
    return None


def _after(
    images: Iterator[Input], scored: Sequence[Sequence[str]], skipped: Sequence[Sequence[str]], output: Path
) -> Iterator[Input]:
    """The images after those of an earlier call, which come in the same order."""
    scored, skipped = [row[0] for row in scored], [row[0] for row in skipped]
    i = j = 0
    for one in images:
        if i < len(scored) and one.path == scored[i]:
            i += 1
        elif j < len(skipped) and one.path == skipped[j]:
            j += 1
        elif scored[i:] or skipped[j:]:
            break
        else:
            yield one
    if missing := scored[i:] + skipped[j:]:
        raise UserError(f"{output} has a result of {missing[0]}, which the input no longer has there; give another --output")


def _predict(run: Run | Exported, one: Input, sizes: set[tuple[int, int]]) -> tuple[np.ndarray, Prediction]:
    """Pixels and prediction of an image; notes the size of the network's input in `sizes`."""
    pixels = run.read(one.read(), one.path)
    size = run.transform.geometry(*pixels.shape[:2]).size
    if run.transform.tile is None and size not in sizes:
        sizes.add(size)
        if len(sizes) == _MANY_SIZES:
            progress.say(
                f"{_MANY_SIZES} sizes of images so far, and the detector is compiled for each (seconds); a run with "
                "data.resize or data.tile has one"
            )
    return pixels, run.predict([pixels])


def _row(run: Run | Exported, one: Input, prediction: Prediction) -> list[Any]:
    score = float(prediction.score[0])
    return [one.path, score] + ([] if run.threshold is None else [int(score >= run.threshold["value"])])
