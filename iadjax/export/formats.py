"""The file formats of an exported detector: StableHLO by `jax.export`, and ONNX."""

import importlib.util
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import plain
from iadjax.errors import UserError

__all__ = ["FORMATS", "LARGEST", "PLATFORMS", "program_of", "require", "to_onnx"]


FORMATS = ("stablehlo", "onnx")

PLATFORMS = ("cpu", "cuda", "tpu")

# of flatbuffers and protocol buffers; the program itself is small
LARGEST = 2**31 - 2**24

_EXTRA = {
    "stablehlo": (("flatbuffers",), "python -m pip install flatbuffers"),
    # its metadata asks for an old Orbax that it does not use here
    "onnx": (
        ("jax2onnx", "onnxruntime"),
        'python -m pip install "iadjax[onnx]" and then python -m pip install --no-deps "jax2onnx>=0.17"',
    ),
}


def require(format: str) -> None:
    modules, command = _EXTRA[format]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{format} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: {command}"
        )


def program_of(format: str, content: bytes, outputs: Sequence[str]) -> Callable:
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(list(outputs), {"image": image})
    return jax.jit(jax.export.deserialize(bytearray(content)).call)


def to_onnx(predict: Callable, shape: tuple[int, ...], outputs: Sequence[str]) -> bytes:
    import jax2onnx

    argument = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        with plain():
            model = jax2onnx.to_onnx(predict, [argument], input_names=["image"], output_names=list(outputs))
    except Exception as error:  # the converter raises whatever its handlers raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"jax2onnx cannot convert this detector ({type(error).__name__}: {reason[:200]}); export it with --format=stablehlo"
        ) from error
    # the converter notes wrong shapes of some intermediate results, which the runtime can infer itself
    del model.graph.value_info[:]
    return model.SerializeToString()
