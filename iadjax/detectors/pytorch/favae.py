"""FAVAE: names of the tensors of open-iad."""

TABLE = {
    r"(?:vae\.)?(encode|decode)\.(\d+)\.(\w+)": r"\1_\2/\3",
    r"(?:vae\.)?adapter\.(\d)\.conv\.(\d)\.(\w+)": r"adapter_\1_\2/\3",
    # those of the frozen network are the backbone's
    r"teacher\..*": None,
}
