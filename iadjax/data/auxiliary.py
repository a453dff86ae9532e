"""Labelled images of another data set, for zero-shot detectors that are trained ("train on A, test on B")."""

from iadjax.data.dataset import Dataset, Item

__all__ = ["with_auxiliary"]


def with_auxiliary(dataset: Dataset, source: Dataset) -> Dataset:
    """The data set with the test images of `source`, their labels and masks, as `auxiliary`.

    Their paths and categories begin with the name of `source` and a colon, so none of them is one of `dataset`.
    """
    prefix = f"{source.name}:"

    def read(item: Item):
        if not item.path.startswith(prefix):
            return dataset.read(item)
        own = {key: getattr(item, key).removeprefix(prefix) for key in ("path", "category")}
        return source.read(item._replace(**own))

    items = [item._replace(path=prefix + item.path, category=prefix + item.category) for item in source.test]
    return dataset._replace(auxiliary=tuple(items), read=read)
