"""Tables of many runs with published figures beside them, from `metrics.json` and `run.json`: Markdown, JSON, LaTeX, HTML."""

from iadjax.experiment.tables.write import write_tables

__all__ = ["write_tables"]
