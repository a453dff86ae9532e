"""The HTML report: summary, curves, histogram and a gallery with the worst mistakes first; it opens from disk."""

import html
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from iadjax import data, metrics
from iadjax.files import printable
from iadjax.report import charts
from iadjax.report.console import columns, number
from iadjax.report.pictures import color_range, colorize, map_on, map_range, outline, overlay, shrunk

__all__ = ["write_report"]

GALLERY = 60
_SIDE = 360


def write_report(directory: Path, run, results: Sequence, table: dict[str, dict]) -> Path:
    """Writes `index.html` and its pictures to `directory`, in place of what was there; returns the page.

    Args:
      directory: where to write.
      run: the fitted run.
      results: one `iadjax.evaluate.Result` per image.
      table: the metrics by category, with "mean".
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=directory.parent))
    try:
        maps = [result.map for result in results if result.map is not None]
        # runs without held-out images, or of earlier versions, have no colours of their own
        low_high = map_range(run.threshold) or (color_range(maps) if maps else (0.0, 1.0))
        sections = []
        for number_, category in enumerate(key for key in table if key != "mean"):
            rows = [result for result in results if result.item.category == category]
            if rows:
                sections.append(_section(temporary / f"images{number_}", category, run, rows, table[category], low_high))
        page = _PAGE.format(
            title=html.escape(f"{run.config['detector']['name']} on {run.config['data']['name']}"),
            facts=_facts(run, len(results)),
            summary=_summary(table),
            sections="\n".join(sections),
        )
        (temporary / "index.html").write_text(printable(page), encoding="utf-8")
        os.chmod(temporary, 0o755)  # noqa: S103  (a page that others may open)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory / "index.html"


def _facts(run, count: int) -> str:
    sizes = run.config["data"]
    facts = {
        **{name: f"{each['name']} {Path(each['weights']).name}".strip() for name, each in run.weights.items()},
        "resize": f"{sizes['resize']} (sides: {sizes['resize_side']}, {sizes['interpolation']})",
        "crop": f"to multiples of {sizes['crop_multiple']}" if sizes["crop_multiple"] else sizes["crop"] or "none",
        "seed": run.config["seed"],
        "protocol": run.config["protocol"]["name"],
        "test images": count,
    }
    if run.threshold:
        facts["threshold"] = (
            f"{run.threshold['value']:.5g} ({run.threshold['name']} of {run.threshold['images']} held-out normal images)"
        )
        if "pixel_value" in run.threshold:
            facts["pixel threshold"] = f"{run.threshold['pixel_value']:.5g}"
    else:
        facts["threshold"] = "none fitted (threshold.holdout = 0)"
    cells = "".join(
        f"<div><dt>{html.escape(key)}</dt> <dd>{html.escape(str(value))}</dd></div>" for key, value in facts.items()
    )
    options = html.escape(json.dumps(run.config, indent=2))
    return f"<dl>{cells}</dl><details><summary>config</summary><pre>{options}</pre></details>"


def _summary(table: dict[str, dict]) -> str:
    names = [name for name in table if name != "mean" or len(table) > 2]
    shown = columns(table)
    head = "".join(f"<th>{title}</th>" for title in shown.values())
    rows = []
    for name in names:
        cells = "".join(f"<td>{number(key, table[name].get(key, float('nan')))}</td>" for key in shown)
        link = html.escape(name) if name == "mean" else f'<a href="#{html.escape(name)}">{html.escape(name)}</a>'
        rows.append(f'<tr class="{"mean" if name == "mean" else ""}"><th>{link}</th>{cells}</tr>')
    return f"<table><thead><tr><th>category</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _mistakes(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each image, the fraction of the other class on the wrong side of it; 0 if the classes are separated."""
    wrong = np.zeros(len(scores))
    for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
        others = scores[labels != label]
        if len(others):
            wrong[i] = np.mean(others >= score) if label else np.mean(others <= score)
    return wrong


def _worst_first(scores: np.ndarray, labels: np.ndarray, wrong: np.ndarray, threshold: float | None) -> np.ndarray:
    """Order of the gallery: by `wrong`, then those that the threshold decides wrongly, then by how far on that side."""
    right = np.ones(len(scores)) if threshold is None else (scores >= threshold) == (labels == 1)
    return np.lexsort((np.where(labels == 1, scores, -scores), right, -wrong))


def _section(directory: Path, category: str, run, rows: list, row_metrics: dict, low_high: tuple[float, float]) -> str:
    directory.mkdir()
    scores = np.array([row.score for row in rows])
    labels = np.array([row.item.label for row in rows])
    threshold = run.threshold["value"] if run.threshold else None
    plots = []
    if 0 < labels.sum() < len(labels):
        roc, pr = metrics.roc_curve(scores, labels), metrics.pr_curve(scores, labels)
        plots.append(charts.curve("ROC, images", "false positive rate", "true positive rate", roc.fpr, roc.tpr))
        plots.append(charts.curve("Precision and recall, images", "recall", "precision", pr.recall, pr.precision))
    plots.append(charts.histogram(scores, labels, threshold))
    wrong = _mistakes(scores, labels)
    order = _worst_first(scores, labels, wrong, threshold)[:GALLERY]
    cards = [_card(directory, rank, run, rows[i], wrong[i], threshold, low_high) for rank, i in enumerate(order)]
    report = row_metrics.get("threshold")
    rule = ""
    if report:
        rule = (
            f"<p>At the threshold {report['value']:.5g}: false positive rate {report['fpr']:.3f}, true positive rate "
            f"{report['tpr']:.3f}, precision {report['precision']:.3f}, F1 {report['f1']:.3f} (test images).</p>"
        )
    shown = f"{len(cards)} of {len(rows)} images, worst mistakes first"
    return _SECTION.format(
        name=html.escape(category),
        plots="".join(plots),
        rule=rule,
        shown=shown,
        cards="".join(cards),
        resolution=row_metrics["resolution"],
        scale=_scale(run.threshold, *low_high) if any(row.map is not None for row in rows) else "",
    )


def _scale(threshold: dict | None, low: float, high: float) -> str:
    """The colour bar of the maps, with its values."""
    colours = colorize(np.linspace(low, high, 17)[None], low, high)[0]
    stops = ", ".join(f"rgb({red}, {green}, {blue})" for red, green, blue in colours)
    source = (
        "of this run, from held-out normal images"
        if map_range(threshold)
        else "from the maps below: the run has none of its own"
    )
    limit = (threshold or {}).get("pixel_value")
    ticks = [(low, ""), (high, "")] + ([] if limit is None or not map_range(threshold) else [(limit, " pixel threshold")])
    marks = "".join(
        f'<span style="left: {100 * min(max((value - low) / (high - low), 0), 1):.1f}%">{value:.4g}{what}</span>'
        for value, what in ticks
    )
    return (
        f'<div class="scale"><i style="background: linear-gradient(to right, {stops})"></i>{marks}'
        f"<em>colours of the maps, {source}</em></div>"
    )


def _card(directory: Path, rank: int, run, row, wrong: float, threshold: float | None, low_high: tuple[float, float]) -> str:
    image, mask = data.read(run.data.dataset, row.item)
    shown = {"image": shrunk(image, _SIDE)}
    size = shown["image"].shape[:2]
    # small defects stay
    marked = np.asarray(Image.fromarray(255 * mask).resize(size[::-1], Image.Resampling.BOX)) > 0
    if row.map is not None:
        shown["map"] = colorize(map_on(run.transform, row.map, mask.shape, size)[0], *low_high)
        shown["overlay"] = np.asarray(overlay(image, run.transform, row.map, *low_high, size=_SIDE))
    names = []
    for kind, pixels in shown.items():
        drawn = Image.fromarray(outline(pixels, marked) if marked.any() and kind != "map" else pixels)
        drawn.save(directory / f"{rank:03d}-{kind}.jpg", quality=90)
        names.append(f"{directory.name}/{rank:03d}-{kind}.jpg")
    verdict = ""
    if threshold is not None:
        said = row.score >= threshold
        verdict = {(1, 0): "missed", (0, 1): "false alarm"}.get((row.item.label, int(said)), "right")
    mistake = wrong > 0 or verdict in ("missed", "false alarm")
    pictures = "".join(
        f'<figure><img src="{name}" loading="lazy" alt="{kind} of {html.escape(row.item.path)}"><figcaption>{kind}</figcaption></figure>'
        for name, kind in zip(names, shown, strict=True)
    )
    kind = "anomalous" if row.item.label else "normal"
    badge = f'<span class="badge {"bad" if verdict in ("missed", "false alarm") else "ok"}">{verdict}</span>' if verdict else ""
    return (
        f'<article data-kind="{kind}" data-mistake="{int(mistake)}"><header><span class="badge {kind}">{html.escape(row.item.defect)}</span>'
        f"{badge}<b>{row.score:.5g}</b><code>{html.escape(row.item.path)}</code></header><div class='trio'>{pictures}</div></article>"
    )


_SECTION = """<section id="{name}">
<h2>{name}</h2>
<div class="plots">{plots}</div>
<p class="legend"><span class="key normal"></span> normal <span class="key anomalous"></span> anomalous
<span class="key contour"></span> outline of the true defect; pixel metrics at resolution: {resolution}</p>
{scale}
{rule}
<div class="bar"><span>{shown}</span><button data-show="all">all</button><button data-show="mistake">mistakes</button>
<button data-show="normal">normal</button><button data-show="anomalous">anomalous</button></div>
<div class="gallery">{cards}</div>
</section>"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: #1c2330; --soft: #5c6675; --line: #dfe3e9; --normal: #3d7ab8; --anomalous: #d4572a; --back: #f6f7f9; }}
body {{ margin: 0 auto; max-width: 1240px; padding: 24px; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); }}
h1 {{ font-size: 26px; margin: 0 0 8px; }} h2 {{ font-size: 20px; margin: 36px 0 8px; }}
dl {{ display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 0 0 8px; }}
dt, dd {{ display: inline; margin: 0; }} dt {{ color: var(--soft); }} dt::after {{ content: ":"; }} dd {{ font-weight: 600; }}
details {{ margin: 0 0 16px; color: var(--soft); }} pre {{ font-size: 12px; background: #fff; padding: 12px; overflow: auto; }}
table {{ border-collapse: collapse; background: #fff; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 10px; border: 1px solid var(--line); text-align: right; font-weight: 400; white-space: nowrap; }}
thead th {{ color: var(--soft); font-size: 13px; white-space: normal; }} tbody th {{ text-align: left; font-weight: 600; }}
tr.mean td, tr.mean th {{ font-weight: 700; background: var(--back); }} a {{ color: inherit; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 16px; }}
.chart {{ width: 340px; background: #fff; border: 1px solid var(--line); border-radius: 6px; }}
.chart .title {{ font-size: 13px; font-weight: 600; fill: var(--ink); }}
.chart .tick {{ font-size: 10px; fill: var(--soft); }} .chart .label {{ font-size: 11px; fill: var(--soft); }}
.chart .grid {{ stroke: var(--line); }} .chart .curve {{ fill: none; stroke: var(--normal); stroke-width: 2; }}
.chart .threshold {{ stroke: var(--ink); stroke-dasharray: 4 3; }}
.normal {{ fill: var(--normal); background: var(--normal); fill-opacity: .65; }}
.anomalous {{ fill: var(--anomalous); background: var(--anomalous); fill-opacity: .65; }}
.legend {{ color: var(--soft); font-size: 13px; }}
.key {{ display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-left: 10px; }} .contour {{ background: #40ff60; }}
.scale {{ position: relative; max-width: 420px; margin: 0 24px; color: var(--soft); font-size: 12px; }}
.scale span {{ position: absolute; top: 14px; white-space: nowrap; transform: translateX(-50%); }}
.scale i {{ display: block; height: 12px; border-radius: 3px; margin-bottom: 22px; }} .scale em {{ font-style: normal; }}
.bar {{ display: flex; gap: 8px; align-items: center; margin: 12px 0; color: var(--soft); }}
button {{ font: inherit; font-size: 13px; padding: 2px 10px; border: 1px solid var(--line); border-radius: 12px; background: #fff; cursor: pointer; }}
.gallery {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(560px, 1fr)); gap: 14px; align-items: start; }}
article {{ background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 10px; }}
article header {{ display: flex; gap: 8px; align-items: center; margin-bottom: 6px; min-width: 0; }}
article code {{ color: var(--soft); font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.badge {{ color: #fff; border-radius: 10px; padding: 0 9px; font-size: 12px; }} .ok {{ background: #6b7686; }} .bad {{ background: #9c1c3c; }}
.trio {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; }}
figure {{ margin: 0; }} figure img {{ width: 100%; max-height: 230px; object-fit: contain; display: block; border-radius: 3px; }}
figcaption {{ font-size: 11px; color: var(--soft); text-align: center; }}
@media (max-width: 640px) {{ .gallery {{ grid-template-columns: 1fr; }} body {{ padding: 12px; }} table {{ display: block; overflow: auto; }} }}
</style></head><body>
<h1>{title}</h1>
{facts}
{summary}
{sections}
<script>
document.querySelectorAll("button[data-show]").forEach(button => button.addEventListener("click", () => {{
  const show = button.dataset.show;
  button.closest("section").querySelectorAll("article").forEach(card => {{
    card.hidden = !(show === "all" || card.dataset.kind === show || (show === "mistake" && card.dataset.mistake === "1"));
  }});
}}));
</script>
</body></html>
"""
