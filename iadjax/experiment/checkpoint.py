"""Checkpoints by Orbax: the state, where the run stood, and what it belongs to.

A state is stored flat, by path. It is put back into a tree of shapes: that of `Detector.init`, nested as `Phase.finalized` of
the phases before leaves it. Frozen variables are not stored. Their name and content hash are, and a restore with other weights
is refused.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from iadjax.detector import DataSpec, State
from iadjax.errors import UserError
from iadjax.parallel import distributed

__all__ = ["Position", "latest", "read", "restore", "save"]


class Position(NamedTuple):
    """How far a run has come.

    Attributes:
      phase: index of the phase under way; the number of phases when all are done.
      epoch: epoch within the phase; its number of epochs when only `finalize` is left.
      batch: batches done within the epoch.
      step: updates done since the beginning.
    """

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0


def _flatten(state: State) -> dict[str, jax.Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _is_key(leaf: jax.Array) -> bool:
    """Whether an array holds typed PRNG keys, of which Orbax stores the numbers and the name of the generator."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _kind(leaf: jax.Array) -> str:
    return f"{_KEY}{jax.random.key_impl(leaf)}" if _is_key(leaf) else str(leaf.dtype)


_KEY = "key:"


def save(directory: Path, state: State, position: Position, identity: dict[str, Any], spec: DataSpec) -> Path:
    """Writes a checkpoint under `directory` and then removes the older ones.

    Args:
      directory: `WORKDIR/checkpoints`.
      state: the detector's state.
      position: where the run stands.
      identity: {"config": fit keys, "weights": {network: record}}, compared on restore, and "carried": whether the fit went on
        from an earlier state.
      spec: what `init` was given.

    Raises:
      UserError: it could not be written (a full disk); the earlier checkpoint stays.
    """
    if distributed.is_main():
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step_{position.step:09d}_{position.phase:02d}_{position.epoch:06d}"
    arrays = _flatten(state)
    stored = {key: value for key, value in spec._asdict().items() if key != "features"}
    metadata = {
        "position": list(position),
        # shapes of features follow from the rest
        "spec": {**stored, "image_shape": list(spec.image_shape), "categories": list(spec.categories)},
        "arrays": {name: [list(array.shape), _kind(array)] for name, array in arrays.items()},
        **identity,
    }
    arrays = {name: _plain(array) for name, array in arrays.items()}
    try:
        ocp.save(path.absolute(), arrays, custom_metadata=metadata, overwrite=True)
    except Exception as error:  # Orbax and TensorStore wrap the operating system's error in types of their own
        _remove_unfinished(directory)
        kept = latest(directory)
        left = f"the one before it, {kept.name}, is intact" if kept else "there is no earlier one"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the checkpoint {path} could not be written ({reason}); {left}; free some space and continue with --resume"
        ) from error
    # all processes write their parts of a checkpoint; one of them removes the older checkpoints
    distributed.barrier(path.name)
    for old in _all(directory) if distributed.is_main() else []:
        if old != path:
            shutil.rmtree(old)
    return path


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob("*orbax-checkpoint-tmp*"):
        shutil.rmtree(path, ignore_errors=True)


def _all(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.glob("step_*") if re.fullmatch(r"step_\d+_\d+_\d+", path.name))


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = _all(directory)
    return found[-1] if found else None


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: position, config, weights, spec, and whether the fit was carried.

    Raises:
      UserError: an earlier version of iadjax wrote it, or it is damaged.
    """
    with _readable(path):
        metadata = ocp.metadata(path.absolute()).custom_metadata
    if "carried" not in (metadata or {}):
        raise UserError(f"{path} was written by an earlier version of iadjax, whose states have other fields; fit it again")
    stored = dict(metadata["spec"])
    shape, categories = (tuple(stored.pop(name)) for name in ("image_shape", "categories"))
    # Orbax reads numbers back as floats
    numbers = {name: int(value) for name, value in stored.items()}
    spec = DataSpec(**numbers, image_shape=tuple(int(size) for size in shape), categories=categories)
    return {**metadata, "position": Position(*(int(each) for each in metadata["position"])), "spec": spec}


def restore(
    path: Path,
    stored: dict[str, Any],
    like: State,
    identity: dict[str, Any],
    place: Callable[[State], Any] | None = None,
) -> State:
    """The state in a checkpoint.

    Args:
      path: a checkpoint.
      stored: what `read` gives of it.
      like: a tree of the same nesting (`load.nested_state`); shapes may differ.
      identity: what the caller runs; must be what the checkpoint was written for.
      place: the shapes of the state -> where its arrays go, whichever devices wrote them; by default the first device.

    Raises:
      UserError: the checkpoint belongs to another config or to other weights; the difference is named.
    """
    differing = [
        f"{key} was {stored['config'].get(key)!r}, now {identity['config'].get(key)!r}"
        for key in sorted({*stored["config"], *identity["config"]})
        if stored["config"].get(key) != identity["config"].get(key)
    ]
    if differing:
        raise UserError(f"{path} belongs to another config: {'; '.join(differing[:4])}; use that config or another workdir")
    for network, record in stored["weights"].items():
        now = identity["weights"][network]
        if record["hash"] != now["hash"]:
            raise UserError(
                f"{path} was fitted on other weights of {record['name']}: {record['weights']!r} with the hash "
                f"{record['hash'][:12]}, now {now['hash'][:12]}; give the same file"
            )
    names = _flatten(like)
    if names.keys() != stored["arrays"].keys():
        raise UserError(f"{path} holds {sorted(stored['arrays'])}, but this version of the detector needs {sorted(names)}")
    treedef = jax.tree_util.tree_structure(like)
    kinds = {name: kind for name, (_, kind) in stored["arrays"].items()}
    flat = [
        jax.ShapeDtypeStruct(tuple(map(int, stored["arrays"][name][0])), leaf.dtype if _is_key(leaf) else kinds[name])
        for name, leaf in names.items()
    ]
    # without a target Orbax needs the devices that wrote the checkpoint
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.leaves(place(jax.tree_util.tree_unflatten(treedef, flat))) if place else [here] * len(flat)
    target = {name: _stored_as(leaf, sharding) for name, leaf, sharding in zip(names, flat, shardings, strict=True)}
    with _readable(path):
        arrays = ocp.load(path.absolute(), target)
    return jax.tree_util.tree_unflatten(treedef, [_restored(arrays[name], kinds[name]) for name in names])


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What Orbax and TensorStore raise for damaged files has many types."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason[:200]}); remove it and fit again with --resume"
        ) from error


def _stored_as(leaf: jax.ShapeDtypeStruct, sharding) -> jax.ShapeDtypeStruct:
    plain = jax.eval_shape(_plain, leaf) if _is_key(leaf) else leaf
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=sharding)


def _restored(array: jax.Array, kind: str) -> jax.Array:
    return jax.random.wrap_key_data(array, impl=kind.removeprefix(_KEY)) if kind.startswith(_KEY) else array
