"""The networks of `reconstruction.py` in plain PyTorch, written from the papers, with functional calls.

Tensors have the names of Flax's variables, joined by dots, in PyTorch's layouts. Only `reconstruction.py` imports this file.
"""

import math

import device_torch
import torch
from torch.nn import functional


def _conv(x, w, name, stride=1, padding=1):
    return functional.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding)


def _transposed(x, w, name, stride=2, padding=1):
    return functional.conv_transpose2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding)


def _linear(x, w, name):
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(x, w, name):
    return device_torch.batch_norm(x, w, name, training=True)


class _Training:
    """Tensors of a network and its Adam."""

    def __init__(self, tensors, **options):
        self.w = device_torch.tensors_of(tensors)
        params = [t.requires_grad_() for name, t in self.w.items() if ".running_" not in name]
        self.optimizer = torch.optim.Adam(params, **options)

    def step(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def _ssim_loss(x, y, window=11, sigma=1.5):
    """1 - mean SSIM (Wang et al., 2004) with zeros outside the image, data range 1."""
    line = torch.exp(-((torch.arange(window) - window // 2) ** 2) / (2 * sigma**2))
    line, channels = line / line.sum(), x.shape[1]
    kernel = (line[:, None] * line[None]).expand(channels, 1, window, window).to(x)
    local = lambda image: functional.conv2d(image, kernel, padding=window // 2, groups=channels)  # noqa: E731
    mean_x, mean_y = local(x), local(y)
    var_x, var_y, cov = local(x * x) - mean_x**2, local(y * y) - mean_y**2, local(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return 1 - (similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def draem(tensors, original, augmented, mask, learning_rate):
    """DRAEM (Zavrtanik et al., ICCV 2021): restored image, then segmentation; L2, SSIM and focal loss."""
    training = _Training(tensors, lr=learning_rate)
    w = training.w
    original, augmented = device_torch.image_of(original), device_torch.image_of(augmented)
    target = functional.one_hot(torch.from_numpy(mask.astype("int64")), 2).permute(0, 3, 1, 2).clamp(1e-5, 1 - 1e-5)

    def unit(x, name, position):
        return torch.relu(_norm(_conv(x, w, f"{name}_{position}"), w, f"{name}_{position + 1}"))

    def double(x, name):
        return unit(unit(x, name, 0), name, 3)

    def up(x, name):
        return unit(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), name, 1)

    def encoder(x, name, number):
        levels = []
        for i in range(1, number + 1):
            x = double(functional.max_pool2d(x, 2) if i > 1 else x, f"{name}.block{i}")
            levels.append(x)
        return levels

    def call():
        x = encoder(augmented, "encoder", 5)[-1]
        for i in range(1, 5):
            x = double(up(x, f"decoder.up{i}"), f"decoder.db{i}")
        restored = _conv(x, w, "decoder.fin_out_0")
        *skips, x = encoder(torch.cat([restored, augmented], 1), "encoder_segment", 6)
        for name in ("_b", "1", "2", "3", "4"):
            x = up(x, f"decoder_segment.up{name}")
            x = double(torch.cat([x, skips.pop()], 1), f"decoder_segment.db{name}")
        p = (target * _conv(x, w, "decoder_segment.fin_out_0").softmax(1)).sum(1) + 1e-5
        focal = -((1 - p) ** 2 * p.log()).mean()
        return training.step((restored - original).square().mean() + _ssim_loss(restored, original) + focal)

    return call


def riad(tensors, images, cells, sets, depth, learning_rate):
    """The U-Net of RIAD (Zavrtanik et al., 2021) on the images without each set of cells; squared error of all together."""
    training = _Training(tensors, lr=learning_rate)
    w, x = training.w, 2 * device_torch.image_of(images) - 1
    hidden = [torch.from_numpy((cells == i).astype("float32"))[:, None] for i in range(sets)]

    def double(x, name, stride):
        x = torch.relu(_norm(_conv(x, w, f"{name}.conv1", stride), w, f"{name}.bn1"))
        return torch.relu(_norm(_conv(x, w, f"{name}.conv2"), w, f"{name}.bn2"))

    def network(x):
        skips = []
        for i in range(1, depth + 1):
            x = double(x, f"down{i}", 1 if i == 1 else 2)
            skips.append(x)
        x = skips.pop()
        for i in range(1, depth):
            x = double(torch.cat([_transposed(x, w, f"up{i}.upconv"), skips.pop()], 1), f"up{i}", 1)
        return torch.tanh(_conv(x, w, "conv_final"))

    def call():
        restored = sum(network(x * (1 - each)) * each for each in hidden)
        return training.step((restored - x).square().mean())

    return call


def ganomaly(generator, discriminator, images, learning_rate, beta1):
    """GANomaly (Akcay et al., ACCV 2018): both steps from the networks before, the weights of its eq. 4."""
    options = {"lr": learning_rate, "betas": (beta1, 0.999)}
    made, judging = _Training(generator, **options), _Training(discriminator, **options)
    x = 2 * device_torch.image_of(images) - 1

    def encoder(x, name):
        w = made.w
        x = functional.leaky_relu(_conv(x, w, f"{name}.initial_conv", 2), 0.2)
        while x.shape[2] > 4:
            pyramid = f"{name}.pyramid_{2 * x.shape[1]}"
            x = functional.leaky_relu(_norm(_conv(x, w, f"{pyramid}_conv", 2), w, f"{pyramid}_batchnorm"), 0.2)
        return _conv(x, w, f"{name}.final_conv", padding=0)

    def decoder(z, width):
        w, features = made.w, width * x.shape[2] // 8
        y = _transposed(z, w, f"decoder.initial_{features}_convt", 1, 0)
        y = torch.relu(_norm(y, w, f"decoder.initial_{features}_batchnorm"))
        while features > width:
            features //= 2
            y = _transposed(y, w, f"decoder.pyramid_{features}_convt")
            y = torch.relu(_norm(y, w, f"decoder.pyramid_{features}_batchnorm"))
        return torch.tanh(_transposed(y, w, "decoder.final_convt"))

    def judge(x):
        w, position = judging.w, 2
        x = functional.leaky_relu(_conv(x, w, "features_0", 2), 0.2)
        while x.shape[2] > 4:
            x = _norm(_conv(x, w, f"features_{position}", 2), w, f"features_{position + 1}")
            x, position = functional.leaky_relu(x, 0.2), position + 3
        return _conv(x, w, "classifier_0", padding=0)[:, 0, 0, 0], x

    width = made.w["encoder1.initial_conv.weight"].shape[0]

    def call():
        z = encoder(x, "encoder1")
        restored = decoder(z, width)
        again, (fake, theirs) = encoder(restored, "encoder2"), judge(restored)
        matching = (theirs - judge(x)[1]).square().mean()
        loss = matching + 50 * (x - restored).abs().mean() + (z - again).square().mean()
        real, fake = judge(x)[0], judge(restored.detach())[0]
        cross_entropy = (functional.softplus(-real) + functional.softplus(fake)).mean() / 2
        value = made.step(loss)
        return value + judging.step(cross_entropy)

    return call


def _adm(w, width, multipliers, blocks, attention):
    """The U-Net of Dhariwal & Nichol (NeurIPS 2021): images and times to the noise."""

    def norm(x, name):
        return functional.group_norm(x, math.gcd(32, x.shape[1]), w[f"{name}.weight"], w[f"{name}.bias"])

    def block(x, code, name, resample=1):
        y = functional.silu(norm(x, f"{name}.in_layers_0"))
        if resample == 2:
            x, y = (functional.interpolate(each, scale_factor=2) for each in (x, y))
        elif resample == -2:
            x, y = (functional.avg_pool2d(each, 2) for each in (x, y))
        y = _conv(y, w, f"{name}.in_layers_2") + _linear(functional.silu(code), w, f"{name}.embed_layers_1")[:, :, None, None]
        y = _conv(functional.silu(norm(y, f"{name}.out_layers_0")), w, f"{name}.out_layers_3")
        return y + (x if x.shape[1] == y.shape[1] else _conv(x, w, f"{name}.skip_connection", padding=0))

    def attend(x, name):
        tokens = norm(x, f"{name}.norm").flatten(2).transpose(1, 2)
        q, k, v = _linear(tokens, w, f"{name}.to_qkv").chunk(3, -1)
        y = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + _linear(y, w, f"{name}.proj_out").transpose(1, 2).reshape(x.shape)

    def unit(x, code, name):
        x = block(x, code, f"{name}_0")
        return attend(x, f"{name}_1") if x.shape[2] in attention else x

    def network(x, t):
        half = width // 2
        angles = t.float()[:, None] * torch.exp(-torch.arange(half) * math.log(10000) / half)[None]
        code = _linear(torch.cat([angles.sin(), angles.cos()], 1), w, "time_embedding_1")
        code = _linear(functional.silu(code), w, "time_embedding_3")
        x = _conv(x, w, "down_0_0")
        skips = [x]
        for level in range(len(multipliers)):
            for _ in range(blocks):
                x = unit(x, code, f"down_{len(skips)}")
                skips.append(x)
            if level < len(multipliers) - 1:
                x = block(x, code, f"down_{len(skips)}_0", -2)
                skips.append(x)
        x = block(attend(block(x, code, "middle_0"), "middle_1"), code, "middle_2")
        number = 0
        for level in reversed(range(len(multipliers))):
            for i in range(blocks + 1):
                attended = x.shape[2] in attention
                x = unit(torch.cat([x, skips.pop()], 1), code, f"up_{number}")
                if level and i == blocks:
                    x = block(x, code, f"up_{number}_{1 + attended}", 2)
                number += 1
        return _conv(functional.silu(norm(x, "out_0")), w, "out_2")

    return network


def adm(tensors, x, t, noise, learning_rate, **options):
    """A step of the U-Net on noised images."""
    training = _Training(tensors, lr=learning_rate)
    network, (x, noise), t = _adm(training.w, **options), map(device_torch.image_of, (x, noise)), torch.from_numpy(t)
    return lambda: training.step((network(x, t) - noise).square().mean())


def ddim(tensors, x, times, coefficients, **options):
    """DDIM's steps (Song et al., ICLR 2021) with the given factors of x and of the predicted noise; gives the mean pixel."""
    network, first = _adm(device_torch.tensors_of(tensors), **options), device_torch.image_of(x)

    @torch.inference_mode()
    def call():
        x = first
        for t, (of_x, of_noise) in zip(times, coefficients, strict=True):
            x = float(of_x) * x + float(of_noise) * network(x, torch.full((len(x),), int(t)))
        return x.square().mean().item()

    return call
