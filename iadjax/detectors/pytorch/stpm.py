"""STPM: names of anomalib's tensors ("student_model.") and of the authors', whose student is a sequence of numbers."""

TABLE = {
    r"student_model\.feature_extractor\.(conv1|bn1)\.(\w+)": r"resnet/\1/\2",
    r"student_model\.feature_extractor\.layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"resnet/layer\1_\2/\3/\4",
    r"student_model\.feature_extractor\.layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"resnet/layer\1_\2/downsample_\3/\4",
    r"0\.(\w+)": r"resnet/conv1/\1",
    r"1\.(\w+)": r"resnet/bn1/\1",
    r"4\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"resnet/layer1_\1/\2/\3",
    r"4\.(\d+)\.downsample\.(\d)\.(\w+)": r"resnet/layer1_\1/downsample_\2/\3",
    r"5\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"resnet/layer2_\1/\2/\3",
    r"5\.(\d+)\.downsample\.(\d)\.(\w+)": r"resnet/layer2_\1/downsample_\2/\3",
    r"6\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"resnet/layer3_\1/\2/\3",
    r"6\.(\d+)\.downsample\.(\d)\.(\w+)": r"resnet/layer3_\1/downsample_\2/\3",
    # the authors' sequence has the last stage too, which no loss reaches
    r"7\..*": None,
    r"teacher_model\..*": None,
}
