"""The folder that `predict_files` writes to: a new one, or the one of an earlier call that is continued."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iadjax import config as configs
from iadjax import files, progress, report
from iadjax.errors import UserError
from iadjax.experiment.inputs import KINDS, LEGEND, MARKER, as_text, safe_name
from iadjax.experiment.outputs import SKIPPED, Table, What, remove_temporary
from iadjax.experiment.run import Run
from iadjax.export import Exported

__all__ = ["begin"]


def begin(
    run: Run | Exported,
    source: str | Path,
    output: Path,
    what: What,
    colours: Callable[[], tuple[float, float] | None],
    found: Sequence[str],
    resume: bool,
) -> What:
    """Makes the output folder, or checks the one to continue.

    Args:
      run: the detector.
      source: as given.
      output: the folder.
      what: which files are written; `colours` is not known yet.
      colours: gives the range of the overlays, for a new output.
      found: the files to score.
      resume: whether an output is continued.

    Returns:
      `what` with the colours.

    Raises:
      UserError: the output holds scores, or those of another call.
    """
    marker = output / MARKER
    about = {
        "run": _fingerprint(run),
        "input": as_text(str(Path(source).expanduser().absolute())),
        "save": list(what.save),
        "overlay_size": what.overlay_size,
        "pixel_threshold": what.threshold,
    }
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give a directory with --output")
    if resume and marker.is_file():
        stored = _read_marker(marker)
        differing = [
            f"{key} was {stored.get(key)!r}, now {value!r}" for key, value in about.items() if stored.get(key) != value
        ]
        if differing:
            raise UserError(f"{output} holds the scores of another call: {'; '.join(differing)}; give another --output")
        remove_temporary(output, KINDS)
        return what._replace(colours=stored["colours"])
    if _holds_rows(output / "scores.csv", marker) or _holds_rows(output / SKIPPED, marker):
        advice = "continue with --resume, or " if marker.is_file() else ""
        raise UserError(f"{output} holds scores already; {advice}give another --output, or remove it")
    what = what._replace(colours=colours())
    names = [(as_text(file), safe_name(file)) for file in found if safe_name(file) != as_text(file)]
    if names:
        with Table(output / "names.csv", ["path", "name"], False) as table:
            table.write(*names)
        progress.say(f"{len(names)} names cannot be written as they are; {output / 'names.csv'} has those of their files")
    if what.colours is not None and "overlays" in what.save:
        limit = (run.threshold or {}).get("pixel_value")
        with files.replacing(output / LEGEND) as temporary:
            report.legend(*what.colours, limit if report.map_range(run.threshold) else None).save(temporary, format="PNG")
    # last: with it the output is complete but for its rows
    files.write_json(marker, about | {"colours": what.colours})
    return what


def _holds_rows(table: Path, marker: Path) -> bool:
    """Whether a table of an output would be lost; one of this call's that stopped at its first image would not."""
    return table.is_file() and not (marker.is_file() and table.read_bytes().count(b"\n") <= 1)


def _read_marker(marker: Path) -> dict[str, Any]:
    advice = "give another --output"
    stored = files.read_json(marker, advice)
    try:
        colours = stored["colours"]
        return stored | {"colours": None if colours is None else (float(colours[0]), float(colours[1]))}
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"cannot read {marker} ({error}); {advice}") from error


def _fingerprint(run: Run | Exported) -> str:
    """What tells detectors apart: the file, or config, weights, threshold and data."""
    if isinstance(run, Exported):
        return run.fingerprint
    record = run.workdir / "run.json"
    try:
        data = files.read_json(record, "")["fingerprint"]
    except (UserError, KeyError):
        # a run is known without its record as well, because its threshold holds statistics of its scores
        data = ""
    return configs.fingerprint([configs.fit_keys(run.config), run.weights, run.threshold, data])
