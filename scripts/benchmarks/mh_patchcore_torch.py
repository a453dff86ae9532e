"""MH-PatchCore's fit in plain PyTorch: the other side of scripts/benchmarks/mh_patchcore.py. Needs torch and sklearn.

Three passes over the images in batches of 32: incremental PCA that keeps 99 % of the variance, the covariance of the
projections in float64, and a bank by merge and reduce with single greedy picks. Features are those of Wide ResNet-50-2: layer2
and layer3, unfolded over 3 x 3 and pooled to 1024.

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

folder, weights = Path(sys.argv[1]), load_file(sys.argv[2])
torch.set_grad_enabled(False)
weights = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in weights.items()}
files = sorted(folder.glob("*.png"))
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def pooled(x, size):
    return functional.adaptive_avg_pool1d(x.reshape(len(x), 1, -1), size)[:, 0]


def normed(x, conv, norm, stride=1, padding=0):
    stats = [weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return functional.batch_norm(functional.conv2d(x, weights[f"{conv}.weight"], None, stride, padding), *stats)


def stage(x, number, blocks):
    for i in range(blocks):
        name, stride = f"layer{number}.{i}", 2 if number > 1 and i == 0 else 1
        y = torch.relu(normed(x, f"{name}.conv1", f"{name}.bn1"))
        y = torch.relu(normed(y, f"{name}.conv2", f"{name}.bn2", stride, 1))
        y = normed(y, f"{name}.conv3", f"{name}.bn3")
        x = normed(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if i == 0 else x
        x = torch.relu(x + y)
    return x


def embed(x):
    x = functional.max_pool2d(torch.relu(normed(x, "conv1", "bn1", 2, 3)), 3, 2, 1)
    second = stage(stage(x, 1, 3), 2, 4)
    grid, levels = second.shape[-2:], []
    for level in (second, stage(second, 3, 6)):
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
