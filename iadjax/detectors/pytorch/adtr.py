"""ADTR: no code is published; the names are those of UniAD's, by the same authors, and of `torch.nn.Transformer`.

As "transformer.encoder.layers.0.linear1.weight", "query_embed.weight", "pos_embed.row_embed.weight", "input_proj.weight".
"""

from iadjax.detectors.pytorch.uniad import TABLE as UNIAD

TABLE = {r"(?:reconstruction\.)?query_embed\.weight": "query_embed_weight", **UNIAD}
