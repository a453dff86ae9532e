"""Training steps of CFLOW-AD and CS-Flow in plain PyTorch, for `flows.py`: the algorithms of the papers, with functional calls.

Weights are nested dicts as Flax has them, in PyTorch's layouts. Only `flows.py` imports this file.
"""

import math

import torch
from torch.nn import functional


def _tensors(tree):
    """Leaves that are trained."""
    if isinstance(tree, dict):
        return {name: _tensors(branch) for name, branch in tree.items()}
    return torch.from_numpy(tree.copy()).requires_grad_()


def _leaves(tree):
    return [leaf for branch in tree.values() for leaf in _leaves(branch)] if isinstance(tree, dict) else [tree]


def _decoder(w, rotations, x, condition, clamp):
    """Couplings of vectors `[N, D]`: latent vectors and log |det|."""
    depth, total = x.shape[1], 0.0
    second = depth // 2
    first = depth - second
    for block, rotation in zip(w, rotations, strict=True):
        y = functional.linear(torch.cat([x[:, :first], condition], 1), block["subnet_0"]["kernel"], block["subnet_0"]["bias"])
        y = 0.1 * functional.linear(torch.relu(y), block["subnet_2"]["kernel"], block["subnet_2"]["bias"])
        s = clamp * torch.tanh(y[:, :second])
        x = torch.cat([x[:, :first], x[:, first:] * torch.exp(s) + y[:, second:]], 1)
        scale = 0.2 * functional.softplus(0.5 * block["global_scale"])
        x = functional.linear(x * scale + block["global_offset"], rotation)
        total = total + s.sum(1) + scale.log().sum()
    return x, total


def cflow(weights, rotations, features, codes, fiber, clamp, rate):
    """A call that makes the steps of one batch of images and gives the sum of the levels' mean losses.

    Args:
      weights: a list of the couplings of each level.
      rotations: matrices of each of them, NumPy.
      features, codes: `[E, D]` and `[E, K]` of each level.
      fiber: positions of a step.
      clamp: of the couplings.
      rate: step -> learning rate.
    """
    w = [[_tensors(block) for block in level] for level in weights]
    fixed = [[torch.from_numpy(matrix.copy()) for matrix in level] for level in rotations]
    x, c = ([torch.from_numpy(each.copy()) for each in part] for part in (features, codes))
    optimizers = [torch.optim.Adam([leaf for block in level for leaf in _leaves(block)]) for level in w]
    count = 0

    def step():
        nonlocal count
        total = 0.0
        for level, matrices, vectors, condition, optimizer in zip(w, fixed, x, c, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rate(count)
            number, depth = vectors.shape
            size = min(fiber, number)
            order, losses = torch.randperm(number), []
            for start in range(0, number // size * size, size):
                index = order[start : start + size]
                z, log_det = _decoder(level, matrices, vectors[index], condition[index], clamp)
                log_p = (log_det - 0.5 * (z**2).sum(1)) / depth - 0.5 * math.log(2 * math.pi)
                loss = -functional.logsigmoid(log_p).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            total += sum(losses) / len(losses)
        count += 1
        return total

    return step


def _cross(w, xs):
    def conv(x, name, stride=1):
        return functional.conv2d(x, w[name]["kernel"], w[name]["bias"], stride, w[name]["kernel"].shape[-1] // 2)

    hidden = [functional.leaky_relu(conv(x, f"conv_scale{i}_0"), 0.1) for i, x in enumerate(xs)]
    outputs = []
    for i, y in enumerate(hidden):
        total = conv(y, f"conv_scale{i}_1")
        if i + 1 < len(hidden):
            finer = functional.interpolate(hidden[i + 1], scale_factor=2, mode="bilinear", align_corners=False)
            total = total + conv(finer, f"up_conv{i + 1}{i}")
        if i:
            total = total + conv(hidden[i - 1], f"down_conv{i - 1}{i}", 2)
        outputs.append(total * w[f"gamma{i}"])
    return outputs


def csflow(weights, orders, features, clamp, learning_rate, weight_decay, clip_norm):
    """A call that makes one training step and gives its loss.

    Args:
      weights: the couplings, each {"cross_convolution1": ..., "cross_convolution2": ...}.
      orders: the channels of each scale before each coupling.
      features: `[B, C, h, w]` of each scale.
      clamp: of the couplings.
      learning_rate, weight_decay, clip_norm: of the optimiser.
    """
    w = [_tensors(block) for block in weights]
    orders = [[torch.from_numpy(order.copy()).long() for order in scales] for scales in orders]
    x = [torch.from_numpy(each.copy()) for each in features]
    params = [leaf for block in w for leaf in _leaves(block)]
    optimizer = torch.optim.Adam(params, lr=learning_rate, eps=1e-4, weight_decay=weight_decay)

    def moved(halves, outputs):
        new, total = [], 0.0
        for half, output in zip(halves, outputs, strict=True):
            a, t = output.chunk(2, 1)
            s = clamp * 0.636 * torch.atan(a / clamp)
            new.append(torch.exp(s) * half + t)
            total = total + s.sum((1, 2, 3))
        return new, total

    def step():
        levels, log_det = x, 0.0
        for block, scales in zip(w, orders, strict=True):
            pairs = [level[:, order].chunk(2, 1) for level, order in zip(levels, scales, strict=True)]
            firsts, seconds = ([pair[i] for pair in pairs] for i in (0, 1))
            firsts, one = moved(firsts, _cross(block["cross_convolution2"], seconds))
            seconds, two = moved(seconds, _cross(block["cross_convolution1"], firsts))
            levels, log_det = [torch.cat(pair, 1) for pair in zip(firsts, seconds, strict=True)], log_det + one + two
        flat = torch.cat([level.flatten(1) for level in levels], 1)
        loss = ((0.5 * (flat**2).sum(1) - log_det) / flat.shape[1]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, clip_norm)
        optimizer.step()
        return loss.item()

    return step
