"""RD4AD with bottleneck blocks against a PyTorch module (the cards have basic ones), its initial weights and padded rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iadjax import detectors, losses
from iadjax.backbones.weights import fill
from iadjax.detectors.families.reverse import Student
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.rd4ad import rd4ad
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

CHANNELS, BLOCKS = (4, 6, 8), (2, 1, 1, 2)


def torch_student(width):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, width, stride, up, shortcut):
            super().__init__()

            def strided(a, b, kernel):
                if up and stride == 2:
                    return nn.ConvTranspose2d(a, b, 2, 2, bias=False)
                return nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)

            inner = (
                [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
                if width
                else [(inputs, outputs, 3), (outputs, outputs, 3)]
            )
            where = 1 if width else 0
            self.count = len(inner)
            for i, (a, b, kernel) in enumerate(inner):
                conv = strided(a, b, kernel) if i == where else nn.Conv2d(a, b, kernel, 1, kernel // 2, bias=False)
                setattr(self, f"conv{i + 1}", conv)
                setattr(self, f"bn{i + 1}", nn.BatchNorm2d(b))
            self.shortcut = shortcut and ("upsample" if up else "downsample")
            if shortcut:
                setattr(self, self.shortcut, nn.Sequential(strided(inputs, outputs, 1), nn.BatchNorm2d(outputs)))

        def forward(self, x):
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = torch.relu(y) if i < self.count else y
            return torch.relu(y + (getattr(self, self.shortcut)(x) if self.shortcut else x))

    class Phi(nn.Module):
        def __init__(self):
            super().__init__()
            a, b, c = CHANNELS
            for i, (inputs, outputs) in enumerate([(a, b), (b, c), (b, c)], start=1):
                setattr(self, f"conv{i}", nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False))
                setattr(self, f"bn{i}", nn.BatchNorm2d(outputs))
            blocks = [Block(3 * c if not i else 2 * c, 2 * c, 8 * width, 1 if i else 2, False, not i) for i in range(BLOCKS[3])]
            self.bn_layer = nn.Sequential(*blocks)

        def forward(self, x, y, z):
            x = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
            y = torch.relu(self.bn3(self.conv3(y)))
            return self.bn_layer(torch.cat([x, y, z], 1))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            inputs = 2 * CHANNELS[2]
            for stage, outputs in enumerate(CHANNELS[::-1], start=1):
                blocks = []
                for i in range(BLOCKS[stage - 1]):
                    blocks.append(Block(inputs, outputs, width * 2 ** (3 - stage), 1 if i else 2, True, not i))
                    inputs = outputs
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))

        def forward(self, x):
            c = self.layer1(x)
            b = self.layer2(c)
            return self.layer3(b), b, c

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.decoder = Phi(), Decoder()

        def forward(self, features):
            return self.decoder(self.bn(*features))

    module = Whole()
    parity.randomize(module)
    return module


def features(seed=0, batch=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, side, side, c)).astype(np.float32) for side, c in zip((16, 8, 4), CHANNELS, strict=True)]


def test_student_with_bottleneck_blocks_equals_pytorch():
    width = 2
    torch = pytest.importorskip("torch")
    module = torch_student(width)
    inputs = features()
    ours = Student(CHANNELS, BLOCKS, width)
    variables = fill(jax.jit(ours.init)(jax.random.key(0), inputs), parity.tensors(module))
    theirs = [parity.to_torch(x) for x in inputs]
    module.eval()
    for a, b in zip(jax.jit(ours.apply)(variables, inputs), module(theirs), strict=True):
        parity.assert_close(a, parity.from_torch(b), 1e-4)

    def loss(params, valid):
        everything = {**variables, "params": params}
        restored, _ = ours.apply(everything, inputs, valid, mutable="batch_stats")
        return losses.mean(sum(losses.cosine_distance(e, d) for e, d in zip(inputs, restored, strict=True)), valid)

    module.train()
    cosine = torch.nn.CosineSimilarity(dim=1)
    total = sum((1 - cosine(e.flatten(1), d.flatten(1))).mean() for e, d in zip(theirs, module(theirs), strict=True))
    total.backward()
    value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"], jnp.ones(3, bool))
    np.testing.assert_allclose(value, total.item(), rtol=1e-4)
    parity.assert_gradients_close(gradients, module)


def test_padded_rows_change_neither_loss_nor_statistics():
    inputs = features()
    student = Student(CHANNELS, BLOCKS, 0)
    variables = jax.jit(student.init)(jax.random.key(0), inputs)
    padded = [np.concatenate([x, 100 * np.ones_like(x[:2])]) for x in inputs]
    valid = jnp.array([True] * 3 + [False] * 2)
    alone, changed = student.apply(variables, inputs, jnp.ones(3, bool), mutable="batch_stats")
    mixed, changed_mixed = student.apply(variables, padded, valid, mutable="batch_stats")
    for a, b in zip(alone, mixed, strict=True):
        parity.assert_close(b[:3], a, 1e-5)
    for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(changed_mixed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def build(**options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = rd4ad(backbone, **options)
    return (
        backbone,
        frozen,
        detector,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (64, 64, 3))),
    )


def test_a_mismatch_names_the_tensor():
    _, _, _, state = build()
    with pytest.raises(UserError, match=r"missing a tensor for bn/bn1/mean.*and \d+ more"):
        from_torch("rd4ad", {"decoder.extra": np.zeros(1)}, state)


def test_plain_convolutions_are_drawn_by_kaiming_s_rule_and_transposed_ones_by_pytorch_s():
    features = [np.zeros((1, side, side, c), np.float32) for side, c in zip((16, 8, 4), (32, 48, 64), strict=True)]
    params = jax.jit(Student((32, 48, 64), BLOCKS, 0).init)(jax.random.key(0), features)["params"]
    plain = np.asarray(params["decoder"]["layer1_0"]["conv2"]["kernel"])
    assert plain.std() == pytest.approx((2 / (9 * plain.shape[-1])) ** 0.5, rel=0.05)
    for block, name in (("layer1_0", "conv1"), ("layer2_0", "upsample_0")):
        kernel = np.asarray(params["decoder"][block][name]["transposed_kernel"])
        # PyTorch counts the output's channels: U(-b, b), b = 1 / sqrt(4 channels)
        bound = (4 * kernel.shape[-1]) ** -0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_bad_options_are_refused():
    assert detectors.options("rd4ad")["beta2"] == 0.999
    with pytest.raises(UserError, match="three levels"):
        build(layers=("layer1", "layer2"))
    with pytest.raises(UserError, match="epochs"):
        build(epochs=0)
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    with pytest.raises(UserError, match="multiple of 32"):
        detector = rd4ad(backbone)
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 4, (48, 48, 3)))


def test_optimizer_is_that_of_the_paper():
    _, _, _, state = build()
    reference = optax.adam(0.005, 0.5, 0.999).init(state.variables["params"])
    assert jax.tree.structure(state.optimizer) == jax.tree.structure(reference)
