"""Dinomaly's training step in plain PyTorch, for `dinomaly.py`: the algorithms of the papers, with functional calls.

Names of tensors are timm's in the encoder and the authors' in the decoder. Only `dinomaly.py` imports this file.
"""

import math

import torch
from device_torch import _normalize
from torch.nn import functional


def _linear(w, name, x):
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(w, name, x, epsilon):
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], epsilon)


def _mlp(w, name, x):
    return _linear(w, f"{name}.fc2", functional.gelu(_linear(w, f"{name}.fc1", x)))


def _encoder(w, image, spec, blocks):
    """Tokens after the first `blocks` blocks of a vision transformer with registers (Darcet et al., ICLR 2024)."""
    x = functional.conv2d(_normalize(image), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=spec.patch)
    batch, _, height, width = x.shape
    table = w["pos_embed"].reshape(1, spec.grid, spec.grid, -1).permute(0, 3, 1, 2)
    scale = ((height + 0.1) / spec.grid, (width + 0.1) / spec.grid)
    x = (x + functional.interpolate(table, scale_factor=scale, mode="bicubic")).flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(batch, -1, -1), w["reg_token"].expand(batch, -1, -1), x], 1)
    levels = []
    for i in range(blocks):
        name = f"blocks.{i}"
        qkv = _linear(w, f"{name}.attn.qkv", _norm(w, f"{name}.norm1", x, 1e-6)).reshape(*x.shape[:2], 3, spec.heads, -1)
        y = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).reshape(x.shape)
        x = x + w[f"{name}.ls1.gamma"] * _linear(w, f"{name}.attn.proj", y)
        x = x + w[f"{name}.ls2.gamma"] * _mlp(w, f"{name}.mlp", _norm(w, f"{name}.norm2", x, 1e-6))
        levels.append(x)
    return levels


def _linear_attention(w, name, x, heads):
    qkv = _linear(w, f"{name}.qkv", x).reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = functional.elu(qkv[0]) + 1, functional.elu(qkv[1]) + 1, qkv[2]
    z = 1 / torch.einsum("bhsd,bhd->bhs", q, k.sum(2))
    y = torch.einsum("bhde,bhsd,bhs->bhse", torch.einsum("bhsd,bhse->bhde", k, v), q, z)
    return _linear(w, f"{name}.proj", y.transpose(1, 2).reshape(x.shape))


def _decoder(w, x, depth, heads, dropout):
    drop = lambda y: functional.dropout(y, dropout)  # noqa: E731
    y = functional.gelu(_linear(w, "bottleneck.0.fc1", drop(x)))
    x, outputs = drop(_linear(w, "bottleneck.0.fc2", drop(y))), []
    for i in range(depth):
        name = f"decoder.{i}"
        x = x + _linear_attention(w, f"{name}.attn", _norm(w, f"{name}.norm1", x, 1e-8), heads)
        x = x + _mlp(w, f"{name}.mlp", _norm(w, f"{name}.norm2", x, 1e-8))
        outputs.append(x)
    return outputs[::-1]


def _loss(levels, outputs, patches, fraction):
    """1 - cos of flattened groups; a hook multiplies the gradient of the positions that are restored best by .1."""
    half, total = len(levels) // 2, 0
    for part in (slice(half), slice(half, None)):
        a, b = (torch.stack(each[part], 1).mean(1)[:, -patches:] for each in (levels, outputs))
        with torch.no_grad():
            distance = 1 - functional.cosine_similarity(a, b, -1)
            number = int(distance.numel() * (1 - fraction))
            easy = distance < torch.topk(distance.flatten(), number)[0][-1]
        b.register_hook(lambda gradient, easy=easy: torch.where(easy[..., None], 0.1 * gradient, gradient))
        total = total + (1 - functional.cosine_similarity(a.flatten(1), b.flatten(1))).mean()
    return total / 2


class StableAdamW:
    """AdamW with AMSGrad whose step is divided by the root mean square of g / d where that is above 1, tensor by tensor."""

    def __init__(self, params, weight_decay=1e-4, beta1=0.9, beta2=0.999, epsilon=1e-10):
        self.params, self.options, self.count = list(params), (weight_decay, beta1, beta2, epsilon), 0
        self.moments = [[torch.zeros_like(p) for _ in range(3)] for p in self.params]

    @torch.no_grad()
    def step(self, rate):
        decay, beta1, beta2, epsilon = self.options
        self.count += 1
        for p, (m, v, largest) in zip(self.params, self.moments, strict=True):
            p.mul_(1 - rate * decay)
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            torch.maximum(largest, v, out=largest)
            denominator = (largest.sqrt() / math.sqrt(1 - beta2**self.count)).add_(epsilon)
            calm = max(1.0, ((p.grad / denominator).norm() / p.numel() ** 0.5).item())
            p.addcdiv_(m, denominator, value=-rate / (1 - beta1**self.count) / calm)


def training(encoder, decoder, image, spec, first, last, dropout, rate, fraction):
    """A call that makes one training step and gives its loss, and the tensors that it trains.

    Args:
      encoder, decoder: state dicts, NumPy.
      image: `[B, H, W, 3]` float32 in [0, 1].
      spec: of the encoder.
      first, last: blocks whose levels are restored, from 1; as many layers has the decoder.
      dropout: of the bottleneck.
      rate: step -> learning rate.
      fraction: of the positions whose gradient is made smaller.
    """
    frozen = {name: torch.from_numpy(tensor.copy()) for name, tensor in encoder.items()}
    w = {name: torch.from_numpy(tensor.copy()).requires_grad_() for name, tensor in decoder.items()}
    image = torch.from_numpy(image.copy()).permute(0, 3, 1, 2).contiguous()
    optimizer = StableAdamW(w.values())
    patches = image.shape[2] // spec.patch * (image.shape[3] // spec.patch)

    def step():
        with torch.no_grad():
            levels = _encoder(frozen, image, spec, last)[first - 1 :]
            x = torch.stack(levels, 1).mean(1)
        loss = _loss(levels, _decoder(w, x, len(levels), spec.heads, dropout), patches, fraction)
        for tensor in w.values():
            tensor.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 0.1)
        optimizer.step(rate(optimizer.count))
        return loss.item()

    return step, w
