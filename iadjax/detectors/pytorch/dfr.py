"""DFR: names of the authors' tensors."""

TABLE = {
    r"(?:cae\.)?(encoder|decoder)\.(\d)\.(\w+)": r"\1_\2/\3",
    # those of the frozen network are the backbone's
    r"vgg\..*": None,
}
