"""CDO: names of the authors' files, which hold the apprentice alone, an HRNet ("model." before the names)."""

from iadjax.detectors.pytorch import ikd

TABLE = {pattern.removeprefix(r"student\."): path for pattern, path in ikd.TABLE.items() if not pattern.startswith("teacher")}
