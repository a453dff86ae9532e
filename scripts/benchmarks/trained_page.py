"""What `trained.py` shows of its runs: the table of docs/trained.md and a curve of each loss."""

from pathlib import Path
from typing import Any

import numpy as np
from detector_command import override_lines
from trained_cases import PLATEAU, SETS

import iadjax
from iadjax.experiment.log import read_losses
from iadjax.experiment.plateau import is_flat, window_of

__all__ = ["KEYS", "file_name", "page", "phases", "picture", "row"]

KEYS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AU-PRO .3",
    "aupro_05": "AU-PRO .05",
}
INTRODUCTION = f"""Each detector until its schedule ended or its loss was flat; made by
`python scripts/benchmarks/trained.py`, not by hand. Flat: over {PLATEAU:.0%} of the steps of the schedule, the loss
fell by no more than a hundredth of all its fall (`plateau`). Some networks, their backbones and sizes of images differ
from the papers'; the overrides below say how. ± is the sample standard deviation over seeds. Pixel
metrics are at the resolution of the masks."""
# points of a curve in the JSON file, each the mean of its part of the steps
POINTS = 60


def phases(workdir: Path) -> list[dict[str, Any]]:
    """Of each phase that has a loss: steps, those of its schedule, what ended it, and its curve."""
    run = iadjax.load(workdir)
    planned = {each.name: each.steps or each.epochs * run.spec.steps_per_epoch for each in run.detector.phases(run.spec)}
    found = []
    for name, values in read_losses(workdir / "log.jsonl").items():
        flat = is_flat(values, window_of(PLATEAU, planned[name]))
        parts = np.array_split(np.array(values), min(POINTS, len(values)))
        found.append(
            {
                "phase": name,
                "steps": len(values),
                "schedule": planned[name],
                "flat": flat,
                "stopped_by": "a flat loss" if len(values) < planned[name] else "the schedule",
                "curve": [float(f"{part.mean():.5g}") for part in parts],
            }
        )
    return found


def picture(phase: dict[str, Any]) -> str:
    """The curve of a phase as SVG; grey, for light and dark pages."""
    width, height, left, top = 320, 150, 50, 12
    values = np.array(phase["curve"])
    low, high = values.min(), values.max()
    x = left + np.linspace(0, width - left - 10, len(values))
    y = top + (high - values) / ((high - low) or 1) * (height - top - 26)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    text = '<text fill="#888" font-family="sans-serif" font-size="10" x="{}" y="{}" text-anchor="{}">{}</text>'
    labels = [
        text.format(left - 5, top + 4, "end", f"{high:.3g}"),
        text.format(left - 5, height - 22, "end", f"{low:.3g}"),
        text.format(left, height - 6, "start", f"loss of {phase['phase']}"),
        text.format(width - 10, height - 6, "end", f"{phase['steps']} steps"),
    ]
    line = f'<polyline points="{points}" fill="none" stroke="#4a7fb5" stroke-width="1.5"/>'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    return frame + line + "".join(labels) + "</svg>\n"


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [name]
    for key in KEYS:
        value = found["accuracy"].get(key)
        spread = f" ± {value['std']:.3f}" if value and value["std"] is not None else ""
        cells.append(f"{value['mean']:.3f}{spread}" if value else "")
    cells += [f"{found['fit_seconds']:.0f}", f"{found['latency_ms']:.0f}", f"{found['images_per_second']:.1f}"]
    cells += [f"{found['peak_memory_gib']:.1f}", found["machine"]]
    ends = [
        f"{each['phase']}: {each['stopped_by']}, {each['steps']:,} of {each['schedule']:,} steps" for each in found["phases"]
    ]
    return f"| {' | '.join([*cells, '; '.join(ends)])} |"


def page(results: dict[str, Any], curves: str) -> str:
    """docs/trained.md; `curves`: folder of the curves beside the page, empty for none."""
    titles = ["detector", *KEYS.values(), "fit s", "latency ms", "images/s", "peak GiB", "on", "what ended it"]
    about = results["about"]
    lines = ["# Trained on real images", "", INTRODUCTION, ""]
    lines += [about["note"], ""] if about.get("note") else []
    for dataset in SETS:
        rows = {name: each[dataset] for name, each in sorted(results["detectors"].items()) if dataset in each}
        if rows:
            size = next(iter(rows.values()))["images"]
            lines += [f"## {dataset}", "", f"About {size['train']} training and {size['test']} test images.", ""]
            lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
            lines += [*(row(*each) for each in rows.items()), ""]
            for name, each in rows.items() if curves else ():
                for phase in each["phases"]:
                    lines.append(f"![loss of {name}]({curves}/{file_name(name, dataset, phase)})")
            lines.append("")
    lines += ["## Overrides", ""]
    lines += override_lines(results["detectors"], SETS, "config")
    return "\n".join(lines) + "\n"


def file_name(name: str, dataset: str, phase: dict[str, Any]) -> str:
    """Of the curve of a phase."""
    return f"{name}-{dataset}-{phase['phase'].replace(' ', '-')}.svg"
