"""What a user should know of a data set before a fit, in a line each."""

from iadjax.data.dataset import Dataset
from iadjax.data.listing import count_of

__all__ = ["UNLABELLED", "remarks"]

UNLABELLED = "unknown"
"""The defect of test images without labels."""


def remarks(dataset: Dataset) -> list[str]:
    """Sentences on files that are left out, and on a test part that is empty or of one class; none where all is well."""
    found = []
    if dataset.left_out:
        found.append(
            f"{len(dataset.left_out)} files or folders are left out ({count_of(dataset.left_out)}), like "
            f"{dataset.left_out[0][0]}; scripts/inspect_data.py lists them"
        )
    labels = {item.label for item in dataset.test if item.defect != UNLABELLED}
    if not dataset.test:
        found.append("there are no test images, so there are no metrics; test/good and test/<defect> would give them")
    elif labels == {0}:
        found.append("the test part holds normal images alone, so metrics that need both kinds are null")
    elif labels == {1}:
        found.append(
            "the test part holds anomalous images alone, so metrics that need both kinds are null (a folder of normal ones "
            "is called good, ok or normal)"
        )
    return found
