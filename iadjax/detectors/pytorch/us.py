"""US: names of the tensors of networks of patches, by their sizes: "teacher17.conv1.weight", "student17_0.conv1.weight" ...

The known re-implementation keeps each network in a file of its own; give its tensors such a prefix. Its networks decode
descriptors to 512 numbers, which students learn: `detector.decode=512`.
"""

import re

import numpy as np

from iadjax.backbones.weights import fill_by_table

TABLE = {
    r"(conv\d)\.(weight|bias)": r"\1/\2",
    r"decode\.(weight|bias)": r"decode/\1",
}


def from_torch(tensors, state):
    """All teachers and students, in the order of the sizes."""
    sizes = sorted({int(match[1]) for match in map(re.compile(r"teacher(\d+)\.").match, tensors) if match})

    def part(prefix):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    teachers, students = [], []
    for size, teacher, student in zip(sizes, state.teachers, state.students, strict=True):
        params = fill_by_table(teacher.variables, part(f"teacher{size}."), TABLE, _layout)
        teachers.append(teacher._replace(variables=params))
        each = [part(f"student{size}_{i}.") for i in range(len(student.variables["params"]["conv1"]["bias"]))]
        stacked = {name: np.stack([tensors[name] for tensors in each]) for name in each[0]}
        params = fill_by_table(student.variables, stacked, TABLE, _layout)
        students.append(student._replace(variables=params))
    return state._replace(teachers=tuple(teachers), students=tuple(students))


def _layout(path, tensor):
    """Kernels of convolutions `[..., O, I, h, w]` to `[..., h, w, I, O]`, of the decoder `[..., O, I]` to `[..., I, O]`."""
    if path[-1] != "kernel":
        return tensor
    return np.swapaxes(tensor, -1, -2) if path[-2] == "decode" else np.moveaxis(tensor, (-4, -3), (-1, -2))
