"""HVQ-Trans: names of the authors' tensors, as "quantize_list_1.0.embed", "encoder.layers.0.linear1.weight".

Their lists of codebooks and of last layers have an entry for each category: bottle to zipper, in the order of the alphabet.
"""

import re

import numpy as np

_LAYER = r"(encoder|decoder)\.layers\.(\d+)\."
_LISTED = re.compile(r"(?:module\.)?(quantize_list_\d+|output_proj_list)\.(\d+)\.(\w+)")

TABLE = {
    rf"{_LAYER}(linear\d|norm\d)\.(\w+)": r"\1_layers_\2/\3/\4",
    rf"{_LAYER}(self_attn|multihead_attn)\.(in_proj_\w+)": r"\1_layers_\2/\3/\4",
    rf"{_LAYER}(self_attn|multihead_attn)\.out_proj\.(\w+)": r"\1_layers_\2/\3/out_proj/\4",
    r"decoder\.norm\.(\w+)": r"decoder_norm/\1",
    r"pos_embed\.(row|col)_embed\.weight": r"pos_embed_\1_embed_weight",
    r"(quantize_conv_t)\.(\w+)": r"\1/\2",
    r"(quantize_\d+)\.(embedding|size|total)": r"\1/\2",
    r"(output_proj_(?:kernel|bias))": r"\1",
    # the frozen network, and a layer that nothing uses
    r"(enc|input_proj)\..*": None,
}


def prepare(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One tensor in place of a list of them, in our layout; codebooks are numbered from 0, the first level."""
    found, lists = {}, {}
    for name, tensor in tensors.items():
        match = _LISTED.fullmatch(name)
        if match is None:
            found[name] = tensor
        else:
            part, number, kind = match.groups()
            lists.setdefault((part, kind), {})[int(number)] = tensor
    kinds = {"embed": "embedding", "embed_avg": "total", "cluster_size": "size"}
    for (part, kind), each in lists.items():
        stacked = np.stack([each[number] for number in sorted(each)])
        # codes are columns there, and so are the outputs of a layer here
        stacked = stacked.swapaxes(1, 2) if stacked.ndim == 3 else stacked
        if part == "output_proj_list":
            found[f"output_proj_{'kernel' if kind == 'weight' else kind}"] = stacked
        else:
            found[f"quantize_{int(part.removeprefix('quantize_list_')) - 1}.{kinds.get(kind, kind)}"] = stacked
    return found
