"""TransFusion: names of the authors' tensors, as their files of MVTec AD and VisA have them."""

_MODEL = r"(?:model\.)?"

TABLE = {
    # a constant
    _MODEL + r"pos_emb\.penc\.inv_freq": None,
    _MODEL + r"time_emb\.(linear_\d)\.(\w+)": r"time_emb_\1/\2",
    _MODEL + r"(image_proj|norm|final|final_mean)\.(\w+)": r"\1/\2",
    _MODEL + r"(down|up)\.(\d+)\.(res|attn)\.(\w+)\.(\w+)": r"\1_\2_\3/\4/\5",
    _MODEL + r"(down|up)\.(\d+)\.conv\.(\w+)": r"\1_\2_conv/\3",
    _MODEL + r"middle\.(res1|res2|attn)\.(\w+)\.(\w+)": r"middle_\1/\2/\3",
    _MODEL + r"final_seg\.(norm|conv)\.(\w+)": r"final_seg_\1/\2",
}
