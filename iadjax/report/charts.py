"""Curves and histograms as SVG text, so that the report needs no plotting library and opens from disk."""

from collections.abc import Sequence

import numpy as np

__all__ = ["curve", "histogram"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 340, 260, 46, 26, 12, 40
_PLOT_W, _PLOT_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


def _frame(title: str, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]], y_ticks, body: str) -> str:
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}" class="chart">']
    parts.append(f'<text x="{_LEFT}" y="16" class="title">{title}</text>')
    for position, text in x_ticks:
        x = _LEFT + position * _PLOT_W
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_TOP + _PLOT_H}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _PLOT_H + 14}" class="tick" text-anchor="middle">{text}</text>')
    for position, text in y_ticks:
        y = _TOP + (1 - position) * _PLOT_H
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _PLOT_W}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" class="tick" text-anchor="end">{text}</text>')
    middle = _TOP + _PLOT_H / 2
    parts.append(f'<text x="{_LEFT + _PLOT_W / 2}" y="{_HEIGHT - 6}" class="label" text-anchor="middle">{x_label}</text>')
    parts.append(
        f'<text x="12" y="{middle}" class="label" text-anchor="middle" transform="rotate(-90 12 {middle})">{y_label}</text>'
    )
    return "".join([*parts, body, "</svg>"])


def _unit_ticks() -> list[tuple[float, str]]:
    return [(value, f"{value:g}") for value in (0.0, 0.25, 0.5, 0.75, 1.0)]


def curve(title: str, x_label: str, y_label: str, x: np.ndarray, y: np.ndarray) -> str:
    """A curve in the unit square."""
    # a screen shows no more; the ends stay
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 400)).astype(int))
    points = " ".join(
        f"{_LEFT + a * _PLOT_W:.1f},{_TOP + (1 - b) * _PLOT_H:.1f}" for a, b in zip(x[keep], y[keep], strict=True)
    )
    return _frame(title, x_label, y_label, _unit_ticks(), _unit_ticks(), f'<polyline points="{points}" class="curve"/>')


def histogram(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> str:
    """Histograms of the scores of normal and anomalous images, in the same bins, and the threshold."""
    low, high = float(scores.min()), float(scores.max())
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, 31)
    counts = [np.histogram(scores[labels == label], edges)[0] for label in (0, 1)]
    top = max(1, *(int(count.max()) for count in counts))
    bars = []
    for count, kind in zip(counts, ("normal", "anomalous"), strict=True):
        for i, number in enumerate(count):
            if number:
                height = number / top * _PLOT_H
                x, width = _LEFT + i / 30 * _PLOT_W, _PLOT_W / 30
                bars.append(
                    f'<rect x="{x:.1f}" y="{_TOP + _PLOT_H - height:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}">'
                    f"<title>{number} {kind}, {edges[i]:.4g} to {edges[i + 1]:.4g}</title></rect>"
                )
    if threshold is not None:
        x = _LEFT + (threshold - low) / (high - low) * _PLOT_W
        bars.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_TOP + _PLOT_H}" class="threshold"/>')
    x_ticks = [(each, f"{low + each * (high - low):.3g}") for each in (0.0, 0.5, 1.0)]
    y_ticks = [(0.0, "0"), (1.0, str(top))]
    return _frame("Scores", "anomaly score", "images", x_ticks, y_ticks, "".join(bars))
