"""CutPaste: names of the re-implementation's tensors (Runinho), as "resnet18.layer1.0.conv1.weight" and "head.0.weight"."""

TABLE = {
    r"resnet18\.(conv1|bn1)\.(\w+)": r"backbone/\1/\2",
    r"resnet18\.layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"backbone/layer\1_\2/\3/\4",
    r"resnet18\.layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"backbone/layer\1_\2/downsample_\3/\4",
    r"head\.(\d+)\.(\w+)": r"head/head_\1/\2",
    r"out\.(\w+)": r"head/out/\1",
}
