"""NSA: names of the authors' tensors."""

TABLE = {
    r"(conv1|bn1)\.(\w+)": r"encoder/\1/\2",
    r"layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)": r"encoder/layer\1_\2/downsample_\3/\4",
    r"layer(\d)\.(\d)\.(\w+)\.(\w+)": r"encoder/layer\1_\2/\3/\4",
    r"uplayer(\d)\.(\d)\.upsample\.(\d)\.(\w+)": r"uplayer\1_\2/upsample_\3/\4",
    r"uplayer(\d)\.(\d)\.(\w+)\.(\w+)": r"uplayer\1_\2/\3/\4",
    r"nin\.(\d)\.(\w+)": r"nin_\1/\2",
    r"convtranspose1\.(\w+)": r"convtranspose1/\1",
}
