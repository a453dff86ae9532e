"""U-Flow: names of the tensors of the authors' code and of anomalib's, with ResNets."""

from iadjax.detectors.pytorch import fastflow

_BLOCK = r"flow\.module_list\.(\d+)\."

TABLE = {
    r"feature_extractor\.feature_normalizations\.(\d+)\.(weight|bias)": r"norms_\1/\2",
    rf"{_BLOCK}(global_scale|global_offset)": r"flow/module_list_\1/\2",
    rf"{_BLOCK}w_perm": r"flow/module_list_\1/permutation",
    rf"{_BLOCK}subnet\.(\d)\.(weight|bias)": r"flow/module_list_\1/subnet_\2/\3",
    rf"{_BLOCK}(w_perm_inv|last_jac|downsample_kernel)": None,
    r"feature_extractor\.(?:feature_)?extractor\..*": None,
}

# the couplings and norms are those of FastFlow
layout = fastflow.layout
