"""The metrics as a table on the terminal."""

from rich.console import Console
from rich.table import Table

__all__ = ["COLUMNS", "number", "print_metrics"]

COLUMNS = {
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


def number(key: str, value: float) -> str:
    """A metric as text: fractions with four digits, speeds with one; a dash where undefined."""
    if value is None or value != value:
        return "-"
    return f"{value:.1f}" if key in ("latency_ms", "throughput_ips") else f"{value:.4f}"


def print_metrics(table: dict[str, dict]) -> None:
    """Prints one row per category and the mean."""
    rows = {key: row for key, row in table.items() if key != "mean" or len(table) > 2}
    grid = Table()
    grid.add_column("category")
    for title in COLUMNS.values():
        grid.add_column(title, justify="right")
    for name, row in rows.items():
        grid.add_row(name, *(number(key, row.get(key, float("nan"))) for key in COLUMNS), end_section=name == "mean")
    # a narrow or redirected terminal must not cut the numbers off
    Console(width=max(Console().width, 132)).print(grid)
