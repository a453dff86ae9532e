"""The stages of scripts/benchmarks/device.py in plain PyTorch, written from the papers. Needs torch; run by that script.

Every form takes NumPy arrays, networks as tensors by PyTorch's names, and returns a function without arguments that is
timed. Feature maps are NHWC outside, channels-last inside. `wrap` is `torch.compile` or nothing.
"""

import functools

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ready(outputs):
    """The outputs, once the device has them."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return outputs


def host(outputs):
    """The outputs as NumPy arrays."""
    if isinstance(outputs, dict):
        return {name: host(each) for name, each in outputs.items()}
    if isinstance(outputs, list):
        return [host(each) for each in outputs]
    return outputs.detach().cpu().numpy() if outputs.dtype != torch.bfloat16 else outputs.detach().float().cpu().numpy()


def _tensor(array):
    return torch.from_numpy(np.array(array)).to(DEVICE)


def image_of(array):
    """`[B, H, W, 3]` to a channels-last tensor `[B, 3, H, W]`."""
    return _tensor(array).permute(0, 3, 1, 2)


def _last(x):
    """`[B, C, H, W]` to `[B, H, W, C]`."""
    return x.permute(0, 2, 3, 1)


def tensors_of(tensors, rounded=False):
    """Tensors of a network; `rounded`: weights of products are, once, where autocast rounds them in every call."""
    tensors = {name: _tensor(tensor) for name, tensor in tensors.items()}
    if rounded:
        tensors = {name: tensor.bfloat16() if tensor.ndim in (2, 4) else tensor for name, tensor in tensors.items()}
    return {n: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in tensors.items()}


def _normalize(x):
    mean, std = (torch.tensor(each, device=DEVICE).view(1, 3, 1, 1) for each in (MEAN, STD))
    return (x - mean) / std


def batch_norm(x, w, name, training=False):
    stats = [w[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return functional.batch_norm(x, *stats, training=training, momentum=0.1, eps=1e-5)


def resnet_levels(w, image, bottleneck, blocks, layers, training=False):
    """He et al., CVPR 2016, with torchvision's names; `training`: its norms take the statistics of the batch."""
    norm = functools.partial(batch_norm, w=w, training=training)
    x = functional.conv2d(_normalize(image), w["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(torch.relu(norm(x, name="bn1")), 3, 2, 1)
    out = {}
    for stage, count in enumerate(blocks, start=1):
        if set(layers) <= out.keys():
            break
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            plan = [(1, 0), (stride, 1), (1, 0)] if bottleneck else [(stride, 1), (1, 1)]
            y = x
            for j, (step, pad) in enumerate(plan, start=1):
                y = norm(functional.conv2d(y, w[f"{name}.conv{j}.weight"], stride=step, padding=pad), name=f"{name}.bn{j}")
                y = torch.relu(y) if j < len(plan) else y
            if f"{name}.downsample.0.weight" in w:
                x = functional.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, name=f"{name}.downsample.1")
            x = torch.relu(x + y)
        out[f"layer{stage}"] = x
    return [out[layer] for layer in layers]


def _vit(w, image, spec):
    """The last patch tokens, normalised, of a vision transformer without registers (Oquab et al., TMLR 2024)."""

    def linear(x, name):
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    x = functional.conv2d(_normalize(image), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=spec.patch)
    batch, _, height, width = x.shape
    table = w["pos_embed"][:, 1:].reshape(1, spec.grid, spec.grid, -1).permute(0, 3, 1, 2)
    if (height, width) != (spec.grid, spec.grid):
        scale = ((height + 0.1) / spec.grid, (width + 0.1) / spec.grid)
        table = functional.interpolate(table, scale_factor=scale, mode="bicubic")
    x = (x + table).flatten(2).transpose(1, 2)
    x = torch.cat([(w["cls_token"] + w["pos_embed"][:, :1]).expand(batch, -1, -1), x], 1)
    for i in range(spec.depth):
        name = f"blocks.{i}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").reshape(*x.shape[:2], 3, spec.heads, -1)
        y = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).reshape(x.shape)
        x = x + w[f"{name}.ls1.gamma"] * linear(y, f"{name}.attn.proj")
        y = linear(functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        x = x + w[f"{name}.ls2.gamma"] * y
    return [norm(x, "norm")[:, 1:].reshape(batch, height, width, -1)]


def _forward(network, image, precision, wrap):
    """Times a network in inference; bfloat16 by autocast, float32 products as JAX has them: TF32 on CUDA."""
    network = wrap(network)

    def call():
        torch.set_float32_matmul_precision("high")
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return network(image)

    return call


def resnet(tensors, image, bottleneck, blocks, layers, precision, rounded, wrap):
    w = tensors_of(tensors, rounded)
    network = lambda x: [_last(each) for each in resnet_levels(w, x, bottleneck, blocks, layers)]  # noqa: E731
    return _forward(network, image_of(image), precision, wrap)


def vit(tensors, image, spec, precision, rounded, wrap):
    w = tensors_of(tensors, rounded)
    return _forward(lambda x: _vit(w, x, spec), image_of(image), precision, wrap)


def knn(queries, bank, k, wrap):
    queries, bank = _tensor(queries), _tensor(bank)
    # a reduction is faster than a selection of one
    nearest = lambda distances: distances.min(1, keepdim=True)[0] if k == 1 else distances.topk(k, largest=False)[0]  # noqa: E731
    search = wrap(lambda: [nearest(torch.cdist(queries, bank))])

    def call():
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            return search()

    return call


def coreset(points, number, wrap):
    """Greedy k-centre in the form that reads the points once per pick; the picks stay on the device."""
    points = _tensor(points)

    def update(distance, best):
        # an index of one element, because a number would have to come to the host
        point = points.index_select(0, best)[0]
        distance = torch.minimum(distance, squares + point @ point - 2 * (points @ point)).index_fill_(0, best, -1)
        return distance, torch.argmax(distance, 0, keepdim=True)

    squares = (points**2).sum(1)
    update = wrap(update)

    def call():
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            best = torch.zeros(1, dtype=torch.int64, device=DEVICE)
            distance = torch.full((len(points),), torch.inf, device=DEVICE)
            picks = []
            for _ in range(number):
                picks.append(best)
                distance, best = update(distance, best)
            return [torch.cat(picks)]

    return call


def _blur_taps(size, sigma=4.0):
    """Taps of the Gaussian and, with the edge pixel repeated as SciPy reflects, the places that they fall on."""
    radius = int(4 * sigma + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1.0) / sigma) ** 2)
    place = torch.arange(-radius, size + radius) % (2 * size)
    return (taps / taps.sum()).view(1, 1, 1, -1).to(DEVICE), torch.minimum(place, 2 * size - 1 - place).to(DEVICE)


def _upsample_blur(maps, size, taps, place):
    """`[B, 1, h, w]` to `[B, 1, size, size]`, smoothed by a separable Gaussian."""
    x = functional.interpolate(maps, (size, size), mode="bilinear")
    return functional.conv2d(functional.conv2d(x[:, :, place][..., place], taps), taps.transpose(2, 3))


def blur(maps, size, wrap):
    maps, smoothing = _tensor(maps)[:, None], _blur_taps(size)
    smooth = wrap(lambda x: [_upsample_blur(x, size, *smoothing)[:, 0]])

    def call():
        with torch.inference_mode():
            return smooth(maps)

    return call


def aupro(maps, masks, wrap, limit=0.3):
    """AU-PRO by its definition: one sort, running sums in float64, trapezoid; components labelled on the host."""
    maps = _tensor(maps)

    def call():
        weights, count = np.zeros(masks.shape), 0
        for weight, mask in zip(weights, masks, strict=True):
            labels, regions = ndimage.label(mask, structure=np.ones((3, 3)))
            weight[mask] = 1 / np.bincount(labels.ravel())[labels[mask]]
            count += regions
        scores, order = torch.sort(maps.ravel(), descending=True)
        false = torch.cumsum(~_tensor(masks).ravel()[order], 0)
        covered = torch.cumsum(_tensor(weights).ravel()[order], 0) / count
        last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
        zero = covered.new_zeros(1)
        fpr, pro = torch.cat([zero, false[last] / false[-1].double()]), torch.cat([zero, covered[last]])
        inside = int((fpr <= limit).sum())
        if inside < len(fpr):
            share = (limit - fpr[inside - 1]) / (fpr[inside] - fpr[inside - 1])
            pro[inside] = pro[inside - 1] + share * (pro[inside] - pro[inside - 1])
            fpr[inside] = limit
        return [torch.trapezoid(pro[: inside + 1], fpr[: inside + 1]) / limit]

    return call


def patchcore(tensors, bank, image, blocks, wrap):
    """PatchCore's prediction (Roth et al., CVPR 2022) with layer2 + layer3, 3 x 3 pooling and eq. 7; host to host."""
    w, bank = tensors_of(tensors), _tensor(bank)
    size, smoothing = image.shape[1], _blur_taps(image.shape[1])

    @wrap
    def predict(x):
        first, second = (
            functional.avg_pool2d(each, 3, 1, 1) for each in resnet_levels(w, x, False, blocks, ("layer2", "layer3"))
        )
        x = torch.cat([first, functional.interpolate(second, first.shape[-2:], mode="bilinear")], 1)
        batch, depth, height, width = x.shape
        patches = _last(x).reshape(batch, -1, depth)
        near, which = torch.cdist(patches.reshape(-1, depth), bank).min(1)
        score, worst = near.view(batch, -1).max(1)
        rows = torch.arange(batch, device=DEVICE)
        center = bank[which.view(batch, -1)[rows, worst]]
        support = torch.cdist(center, bank).topk(9, largest=False).indices
        to_support = (patches[rows, worst][:, None] - bank[support]).norm(dim=-1)
        score = score * (1 - torch.softmax(to_support, 1)[:, 0])
        return score, _upsample_blur(near.view(batch, 1, height, width), size, *smoothing)[:, 0]

    def call():
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            return [each.cpu() for each in predict(image_of(image))]

    return call
