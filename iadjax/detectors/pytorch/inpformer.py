"""INP-Former: names of the authors' tensors, as "aggregation.0.attn.kv.weight" and "prototype_token", and of anomalib's."""

from iadjax.detectors.pytorch.dinomaly import prepare

__all__ = ["TABLE", "prepare"]

TABLE = {
    r"prototype_token(?:\.0)?": r"prototype_token",
    r"bottleneck\.0\.(fc\d)\.(\w+)": r"bottleneck_0/\1/\2",
    r"(aggregation|decoder)\.(\d+)\.attn\.learn_scale": r"\1_\2/attn/learn_scale",
    r"(aggregation|decoder)\.(\d+)\.(norm\d)\.(\w+)": r"\1_\2/\3/\4",
    r"(aggregation|decoder)\.(\d+)\.(attn|mlp)\.(\w+)\.(\w+)": r"\1_\2/\3/\4/\5",
    # the backbone's, and a constant
    r"encoder\..*|gaussian_blur\..*": None,
}
