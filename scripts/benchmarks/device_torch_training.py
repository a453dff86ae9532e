"""Training steps of scripts/benchmarks/device.py in plain PyTorch, written from the papers. Needs torch; run by that script.

As in `device_torch.py`: NumPy arrays in, a function without arguments out. A step gives the loss and the optimiser's first
moments, which are gradients.
"""

import device_torch
import torch
from torch.nn import functional

LAYERS = ("layer1", "layer2", "layer3")


def _train(w, loss, image, wrap, make=torch.optim.Adam, **options):
    """A step of an optimiser on all of `w` but running statistics; gives the loss and the first moments."""
    params = {n: t.requires_grad_() for n, t in w.items() if ".running_" not in n}
    optimizer = make(params.values(), **options)
    moment = "momentum_buffer" if make is torch.optim.SGD else "exp_avg"
    loss = wrap(loss)

    def call():
        torch.set_float32_matmul_precision("high")
        optimizer.zero_grad()
        value = loss(image)
        value.backward()
        optimizer.step()
        return [value, {name: optimizer.state[each][moment] for name, each in params.items()}]

    return call


def rd4ad(teacher, student, image, blocks, wrap):
    """Reverse distillation (Deng & Li, CVPR 2022), basic blocks; Adam with the betas of its section 4.1."""
    frozen, w = device_torch.tensors_of(teacher), device_torch.tensors_of(student)

    def strided(x, name, stride, up):
        weight = w[f"{name}.weight"]
        if up and stride == 2:
            return functional.conv_transpose2d(x, weight, stride=2)
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def norm(x, name):
        return device_torch.batch_norm(x, w, name, training=True)

    def stage(x, name, count, up):
        for i in range(count):
            block, stride = f"{name}.{i}", 1 if i else 2
            y = torch.relu(norm(strided(x, f"{block}.conv1", stride, up), f"{block}.bn1"))
            y = norm(strided(y, f"{block}.conv2", 1, up), f"{block}.bn2")
            if i == 0:
                way = f"{block}.{'upsample' if up else 'downsample'}"
                x = norm(strided(x, f"{way}.0", stride, up), f"{way}.1")
            x = torch.relu(x + y)
        return x

    def loss(image):
        with torch.no_grad():
            a, b, c = levels = device_torch.resnet_levels(frozen, image, False, blocks, LAYERS)
        a = torch.relu(norm(strided(a, "bn.conv1", 2, False), "bn.bn1"))
        a = torch.relu(norm(strided(a, "bn.conv2", 2, False), "bn.bn2"))
        b = torch.relu(norm(strided(b, "bn.conv3", 2, False), "bn.bn3"))
        x = stage(torch.cat([a, b, c], 1), "bn.bn_layer", blocks[3], False)
        total = 0
        for i, level in enumerate(levels[::-1]):
            x = stage(x, f"decoder.layer{i + 1}", blocks[i], True)
            total = total + (1 - functional.cosine_similarity(level.flatten(1), x.flatten(1))).mean()
        return total

    return _train(w, loss, device_torch.image_of(image), wrap, lr=0.005, betas=(0.5, 0.999))


def fastflow(teacher, flows, image, blocks, steps, wrap):
    """Two-dimensional flows per level (Yu et al., 2021): couplings of 3 x 3 convolutions with a norm before each flow."""
    frozen, w = device_torch.tensors_of(teacher), device_torch.tensors_of(flows)
    # as matrices, because the gradient of an index is slow and its result not channels-last; constants, so under no name
    orders = {name: w.pop(name) for name in list(w) if name.endswith(".permutation")}
    matrices = {
        name: torch.eye(len(order), device=device_torch.DEVICE)[order][:, :, None, None] for name, order in orders.items()
    }

    def loss(image):
        with torch.no_grad():
            levels = device_torch.resnet_levels(frozen, image, False, blocks, LAYERS)
        total = 0
        for level, x in enumerate(levels):
            x = functional.layer_norm(x, x.shape[1:], w[f"norms.{level}.weight"], w[f"norms.{level}.bias"])
            half, log_det = x.shape[1] // 2, 0
            for i in range(steps):
                name = f"nf_flows.{level}.module_list.{i}"
                a = functional.conv2d(x[:, :half], w[f"{name}.subnet.0.weight"], w[f"{name}.subnet.0.bias"], padding=1)
                a = functional.conv2d(torch.relu(a), w[f"{name}.subnet.2.weight"], w[f"{name}.subnet.2.bias"], padding=1)
                s, t = (0.1 * a).chunk(2, 1)
                s = 2 * torch.tanh(s)
                x = torch.cat([x[:, :half], x[:, half:] * s.exp() + t], 1)
                scale = 0.1 * functional.softplus(w[f"{name}.global_scale"], beta=0.5)
                x = x * scale.view(1, -1, 1, 1) + w[f"{name}.global_offset"].view(1, -1, 1, 1)
                x = functional.conv2d(x, matrices[f"{name}.permutation"])
                log_det = log_det + s.sum((1, 2, 3)) + x.shape[2] * x.shape[3] * scale.log().sum()
            total = total + (0.5 * (x**2).sum((1, 2, 3)) - log_det).mean()
        return total

    return _train(w, loss, device_torch.image_of(image), wrap, lr=1e-3, weight_decay=1e-5)


def stpm(teacher, student, image, blocks, wrap):
    """Student-teacher feature pyramid matching (Wang et al., BMVC 2021), eq. 1 to 3; SGD of its section 4.1."""
    frozen, w = device_torch.tensors_of(teacher), device_torch.tensors_of(student)
    own = {name.removeprefix("resnet."): tensor for name, tensor in w.items()}

    def loss(image):
        with torch.no_grad():
            levels = device_torch.resnet_levels(frozen, image, False, blocks, LAYERS)
        students = device_torch.resnet_levels(own, image, False, blocks, LAYERS, training=True)
        pairs = zip(levels, students, strict=True)
        distances = [(functional.normalize(t) - functional.normalize(s)).pow(2).sum(1).mean() for t, s in pairs]
        return 0.5 * sum(distances)

    options = {"lr": 0.4, "momentum": 0.9, "weight_decay": 1e-4}
    return _train(w, loss, device_torch.image_of(image), wrap, torch.optim.SGD, **options)


def cfa(teacher, params, centers, image, blocks, wrap, nearest=3, further=3, nu=1e-3, alpha=0.1):
    """Coupled-hypersphere feature adaptation (Lee et al., IEEE Access 2022), eq. 1 and 2, with a CoordConv of kernel 1."""
    frozen, w = device_torch.tensors_of(teacher), device_torch.tensors_of(params)
    centers = torch.from_numpy(centers.copy()).to(device_torch.DEVICE)

    def loss(image):
        with torch.no_grad():
            levels = device_torch.resnet_levels(frozen, image, False, blocks, LAYERS)
            levels = [functional.avg_pool2d(level, 3, 1, 1) for level in levels]
            size = levels[0].shape[2:]
            levels = [levels[0], *(functional.interpolate(level, size, mode="bilinear") for level in levels[1:])]
            rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side, device=image.device) for side in size), indexing="ij")
            places = torch.stack([rows, columns]).expand(len(image), -1, -1, -1)
        phi = functional.conv2d(torch.cat([*levels, places], 1), w["kernel"][:, :, None, None], w["bias"])
        phi = phi.flatten(2).transpose(1, 2).flatten(0, 1)
        squared = (phi**2).sum(1, keepdim=True) + (centers**2).sum(1) - 2 * phi @ centers.T
        squared = squared.topk(nearest + further, largest=False).values
        radius = w["radius"] ** 2
        attracted = torch.relu(squared[:, :nearest] - radius).mean()
        return (attracted + torch.relu(radius - squared[:, nearest:] - alpha).mean()) / nu

    options = {"lr": 1e-3, "weight_decay": 5e-4, "amsgrad": True}
    return _train(w, loss, device_torch.image_of(image), wrap, torch.optim.AdamW, **options)
