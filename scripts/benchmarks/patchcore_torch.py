"""PatchCore in plain PyTorch on the MTD-300 subset: the other side of scripts/benchmarks/patchcore.py. Needs torch alone.

The same job as `configs/unsupervised/patchcore.py:mtd_300`: ResNet-18 layer2 + layer3, 3 x 3 average pooling, 1 % greedy
coreset on a sparse random projection, nearest neighbours, re-weighting with 9 neighbours, blur of sigma 4.

    python scripts/benchmarks/patchcore_torch.py ROOT WEIGHTS.safetensors
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

root, weights = Path(sys.argv[1]), load_file(sys.argv[2])
torch.manual_seed(0)
torch.set_grad_enabled(False)


def norm(x, name):
    stats = [weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return functional.batch_norm(x, *stats, training=False, eps=1e-5)


def embed(x):
    x = functional.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(torch.relu(norm(x, "bn1")), 3, 2, 1)
    levels = []
    for stage in (1, 2, 3):
        for i in range(2):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = torch.relu(norm(functional.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(functional.conv2d(y, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in weights:
                x = norm(functional.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = torch.relu(x + y)
        levels.append(functional.avg_pool2d(x, 3, 1, 1))
    deeper = functional.interpolate(levels[2], levels[1].shape[-2:], mode="bilinear")
    return torch.cat([levels[1], deeper], 1).permute(0, 2, 3, 1).contiguous()


def load(files):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for begin in range(0, len(files), 16):
        rows = [
            np.asarray(Image.open(file).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR))
            for file in files[begin : begin + 16]
        ]
        images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255
        yield ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def names(kind):
    return sorted((root / f"MT_{kind}/Imgs").glob("*.jpg"))


normal = names("Free")
train = [file for i, file in enumerate(normal) if i % 5][:200]
test = [file for i, file in enumerate(normal) if i % 5 == 0][:100]
test += [file for kind in ("Blowhole", "Break", "Crack", "Fray", "Uneven") for file in names(kind)[:20]]
labels = [0] * 100 + [1] * 100

features = torch.cat([embed(batch).reshape(-1, 384) for batch in load(train)])
size, depth = features.shape
dims = int(4 * math.log(size) / (0.9**2 / 2 - 0.9**3 / 3))
uniform, density = torch.rand(depth, dims), 1 / math.sqrt(depth)
matrix = torch.where(uniform < density / 2, -1.0, torch.where(uniform < density, 1.0, 0.0)) / math.sqrt(density * dims)
points = features @ matrix
squares = (points**2).sum(1)
picks = [int(torch.randint(size, ()))]
distance = torch.full((size,), math.inf)
for _ in range(int(0.01 * size) - 1):
    point = points[picks[-1]]
    distance = torch.minimum(distance, squares + point @ point - 2 * (points @ point))
    picks.append(int(torch.argmax(distance)))
bank = features[picks]

offsets = torch.arange(-16, 17, dtype=torch.float32)
kernel = torch.exp(-0.5 * (offsets / 4) ** 2)
kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
scores, maps = [], []
for batch in load(test):
    queries = embed(batch)
    count, height, width, _ = queries.shape
    near, which = torch.cdist(queries.reshape(-1, depth), bank).min(1)
    near, which = near.view(count, -1), which.view(count, -1)
    score, worst = near.max(1)
    patch = queries.reshape(count, -1, depth)[torch.arange(count), worst]
    center = bank[which[torch.arange(count), worst]]
    support = torch.cdist(center, bank).topk(9, largest=False).indices
    to_support = (patch[:, None] - bank[support]).norm(dim=-1)
    scores.append(score * (1 - torch.softmax(to_support, 1)[:, 0]))
    upsampled = functional.interpolate(near.view(count, 1, height, width), (256, 256), mode="bilinear")
    padded = functional.pad(upsampled, (16, 16, 16, 16), mode="reflect")
    maps.append(functional.conv2d(functional.conv2d(padded, kernel), kernel.transpose(2, 3)))
scores = torch.cat(scores).numpy()
good, bad = scores[:100], scores[100:]
print(f"image_auroc {np.mean((bad[:, None] > good) + 0.5 * (bad[:, None] == good)):.4f}")
