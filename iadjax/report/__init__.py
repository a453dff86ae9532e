"""What a person looks at: heat maps, curves, the HTML report, the table on the terminal."""

from iadjax.report.console import print_metrics
from iadjax.report.page import write_report
from iadjax.report.pictures import color_range, legend, map_on, map_range, normal_range, overlay

__all__ = ["color_range", "legend", "map_on", "map_range", "normal_range", "overlay", "print_metrics", "write_report"]
