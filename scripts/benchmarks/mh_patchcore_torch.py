"""MH-PatchCore's fit in plain PyTorch: the other side of scripts/benchmarks/mh_patchcore.py. Needs torch, torchvision, sklearn.

Three passes over the images in batches of 32: incremental PCA that keeps 99 % of the variance, the covariance of the projections
in float64, and a bank by merge and reduce with single greedy picks. Features are those of Wide ResNet-50-2, layer2 + layer3,
unfolded over 3 x 3 and pooled to 1024.

    python scripts/benchmarks/mh_patchcore_torch.py FOLDER WEIGHTS.safetensors
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.decomposition import IncrementalPCA
from torch.nn import functional
from torchvision.models import wide_resnet50_2

folder, weights = Path(sys.argv[1]), load_file(sys.argv[2])
torch.set_grad_enabled(False)
network = wide_resnet50_2(weights=None)
network.load_state_dict(weights)
network.eval().to(memory_format=torch.channels_last)
files = sorted(folder.glob("*.png"))
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def pooled(x, size):
    return functional.adaptive_avg_pool1d(x.reshape(len(x), 1, -1), size)[:, 0]


def embed(x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    second = network.layer2(network.layer1(x))
    third = network.layer3(second)
    grid, levels = second.shape[-2:], []
    for level in (second, third):
        patches = functional.unfold(level, 3, padding=1).reshape(len(level), -1, *level.shape[-2:])
        if level.shape[-2:] != grid:
            patches = functional.interpolate(patches, grid, mode="bilinear")
        levels.append(pooled(patches.permute(0, 2, 3, 1).reshape(-1, patches.shape[1]), 1024))
    return pooled(torch.stack(levels, 1), 1024)


def batches():
    for begin in range(0, len(files), 32):
        rows = []
        for file in files[begin : begin + 32]:
            image = Image.open(file).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
            rows.append(np.asarray(image.crop((16, 16, 240, 240))))
        images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255
        yield embed(((images - mean) / std).contiguous(memory_format=torch.channels_last))


def coreset(points, number):
    if number >= len(points):
        return points
    picks = [int(torch.argmax(torch.linalg.vector_norm(points - points.mean(0), dim=1)))]
    distance = torch.linalg.vector_norm(points - points[picks[-1]], dim=1)
    while len(picks) < number:
        picks.append(int(torch.argmax(distance)))
        distance = torch.minimum(distance, torch.linalg.vector_norm(points - points[picks[-1]], dim=1))
    return points[picks]


seconds, began = {}, time.perf_counter()
pca = IncrementalPCA()
for x in batches():
    pca.partial_fit(x.numpy())
kept = int(np.flatnonzero(np.cumsum(pca.explained_variance_ratio_) >= 0.99)[0]) + 1
axes, origin = torch.from_numpy(pca.components_[:kept]).float(), torch.from_numpy(pca.mean_).float()
seconds["pca"] = time.perf_counter() - began

began = time.perf_counter()
count, centre, scatter = 0, torch.zeros(kept, dtype=torch.float64), torch.zeros(kept, kept, dtype=torch.float64)
for x in batches():
    z = ((x - origin) @ axes.T).double()
    step = z.mean(0) - centre
    centred = z - z.mean(0)
    scatter += centred.T @ centred + torch.outer(step, step) * (count * len(z) / (count + len(z)))
    count += len(z)
    centre += step * len(z) / count
covariance = scatter / (count - 1)
covariance = 0.93 * covariance + 0.07 * torch.trace(covariance) / kept * torch.eye(kept, dtype=torch.float64)
whitening = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
seconds["covariance"] = time.perf_counter() - began

began = time.perf_counter()
levels = {}
for x in batches():
    block = coreset((((x - origin) @ axes.T).double() - centre) @ whitening, 256)
    level = 0
    while level in levels:
        block = coreset(torch.cat([levels.pop(level), block]), 256)
        level += 1
    levels[level] = block
bank = coreset(torch.cat([levels[level] for level in sorted(levels)]), 1000)
seconds["bank"] = time.perf_counter() - began
parts = " ".join(f"{name} {value:.1f}" for name, value in seconds.items())
print(f"{sum(seconds.values()):.2f} s: {parts}; {kept} axes, {len(bank)} patches")
