"""The metrics as a table on the terminal."""

from rich.console import Console
from rich.table import Table

__all__ = ["columns", "number", "print_metrics"]

_COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "aupro": "AU-PRO .3",
    "aupro_05": "AU-PRO .05",
    "latency_ms": "ms/image",
    "throughput_ips": "images/s",
}
# of data sets with logical anomalies alone
_LOCO = {
    "image_auroc_logical": "AUROC logical",
    "image_auroc_structural": "AUROC structural",
    "au_spro_logical": "AU-sPRO .05 logical",
    "au_spro_structural": "AU-sPRO .05 structural",
    "au_spro": "AU-sPRO .05",
}


def columns(table: dict[str, dict]) -> dict[str, str]:
    """Keys and titles of what a table of metrics shows: the usual ones, and those that some of its rows have beside them."""
    return _COLUMNS | {key: title for key, title in _LOCO.items() if any(key in row for row in table.values())}


def number(key: str, value: float) -> str:
    """A metric as text: fractions with four digits, speeds with one; a dash where undefined."""
    if value is None or value != value:
        return "-"
    return f"{value:.1f}" if key in ("latency_ms", "throughput_ips") else f"{value:.4f}"


def print_metrics(table: dict[str, dict]) -> None:
    """Prints one row per category and the mean."""
    rows = {key: row for key, row in table.items() if key != "mean" or len(table) > 2}
    grid = Table()
    grid.add_column("category", no_wrap=True)
    shown = columns(table)
    for title in shown.values():
        grid.add_column(title, justify="right")
    for name, row in rows.items():
        grid.add_row(name, *(number(key, row.get(key, float("nan"))) for key in shown), end_section=name == "mean")
    # a narrow or redirected terminal must not cut the numbers off
    Console(width=max(Console().width, 132 + 16 * (len(shown) - len(_COLUMNS)))).print(grid)
