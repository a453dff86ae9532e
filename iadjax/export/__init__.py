"""A fitted detector as one file."""

from iadjax.export.exported import Exported, load_exported
from iadjax.export.formats import FORMATS
from iadjax.export.write import TOLERANCE, export

__all__ = ["FORMATS", "TOLERANCE", "Exported", "export", "load_exported"]
