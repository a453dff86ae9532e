"""UniNet: "A Contrastive Learning-guided Unified Framework with Feature Selection for Anomaly Detection" (Wei et
al., CVPR 2025).

Reverse distillation from two teachers: a frozen source, and a target that begins as its copy and is trained. What the student
restores of one teacher has to match the other one, at each position better than at all other positions of the image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.reverse import reverse_student
from iadjax.errors import UserError
from iadjax.nn.layers import linear
from iadjax.parallel.axis import all_sum

__all__ = ["log_match", "select", "uninet", "weighted_score"]


def select(student: jax.Array, prior: jax.Array, theta: jax.Array | float) -> jax.Array:
    """Domain-related feature selection: the student's features, weighed by the teacher's.

    Args:
      student, prior: `[B, h, w, C]`, of the student and of the teacher.
      theta: `[C]`, or 1: how much the weights of the positions count beside the teacher's mean.

    Returns:
      student * softmax over positions of the prior * (theta + mean over positions of the prior).
    """
    weights = jax.nn.softmax(prior.reshape(len(prior), -1, prior.shape[-1]), axis=1).reshape(prior.shape)
    mean = jnp.mean(prior, axis=(1, 2), keepdims=True)
    return student * weights * (mean + (theta if isinstance(theta, float) else ops.per_channel(theta, mean)))


def log_match(s: jax.Array, t: jax.Array, temperature: float) -> jax.Array:
    """Log-probability that each position of s matches the same one of t among all positions of its image: `[B, h, w]`.

    Args:
      s, t: `[B, h, w, C]`, unit vectors.
      temperature: T of the softmax over cosines.
    """
    others = t.reshape(len(t), -1, t.shape[-1])

    def of_row(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        s, t = rows
        cosines = jnp.einsum("bic,bjc->bij", s, others, precision="highest")
        return jnp.sum(s * t, axis=-1) / temperature - jax.nn.logsumexp(cosines / temperature, axis=-1)

    # one row of the grid after the other, and again for the gradient: all pairs would take gigabytes
    rows = jax.lax.map(jax.checkpoint(of_row), (jnp.swapaxes(s, 0, 1), jnp.swapaxes(t, 0, 1)))
    return jnp.swapaxes(rows, 0, 1)


def weighted_score(largest: jax.Array, maps: jax.Array, alpha: float, beta: float) -> jax.Array:
    """Weighted decision mechanism: the mean of the largest pixels, of which there are more in maps with large values.

    Args:
      largest: `[B, L]`, the largest distance of each level, at most 2.
      maps: `[B, H, W]`.
      alpha: of all pixels, this fraction times the mean of those `largest` whose softmax is above its mean.
      beta: the least fraction; one pixel counts at least.

    Returns:
      `[B]`, each of its own image alone.
    """
    chosen = jax.nn.softmax(largest, axis=1) > 1 / largest.shape[1]
    # where all are equal none is above the mean
    chosen |= ~jnp.any(chosen, axis=1, keepdims=True)
    fraction = jnp.maximum(alpha * jnp.mean(largest, axis=1, where=chosen), beta)
    values = maps.reshape(len(maps), -1)
    size = values.shape[1]
    most = min(size, max(1, int(size * max(2 * alpha, beta))))
    number = jnp.clip((size * fraction).astype(jnp.int32), 1, most)
    counted = jnp.arange(most)[None] < number[:, None]
    return jnp.mean(jax.lax.top_k(values, most)[0], axis=1, where=counted)


def uninet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    temperature: float = 2.0,
    cosine_weight: float = 0.7,
    margin: float = 1.0,
    anomalous_margin: float = 0.5,
    selection: bool = True,
    learned_theta: bool = True,
    classify: bool = False,
    anomaly_fraction: float = 0.0,
    epochs: int = 100,
    learning_rate: float = 5e-3,
    target_rate: float = 1e-6,
    weight_decay: float = 1e-5,
    alpha: float = 0.01,
    beta: float = 3e-5,
    sigma: float = 4.0,
) -> Detector:
    """Builds UniNet.

    Map: cosine distance of features, summed over three levels of both pairs, in [0, 12], not smoothed.

    The authors' code is github.com/pangdatangtt/UniNet (MIT). It takes the weight of a score from a batch of test images, with
    one image in each; here every image has its own.

    Args:
      backbone: the source teacher; its variables are `frozen["backbone"]`. The target teacher begins with them, and uses the
        statistics of each batch in training. The student is RD4AD's, with two branches in the blocks of the bottleneck. With a
        backbone without weights both teachers are the same.
      layers: three levels, each of half the grid of the one before.
      temperature: T of the contrastive loss. The authors take 0.1 for some categories of MVTec AD (see the config).
      cosine_weight: lambda, weight of the cosine distance; that of the contrastive loss is 1 - lambda.
      margin: normal positions are to match with a probability above it.
      anomalous_margin: labelled anomalous positions are to match with one below it, half of `margin` in the authors' code;
        anomalib has `margin` itself.
      selection: whether the student's features are selected by the teachers' in training; not for transistors in the authors'
        code.
      learned_theta: train theta of the selection, as in the paper. In the authors' code no optimiser knows it: it stays 1.
      classify: add the cross-entropy of the image's label, by one linear layer on the mean of the student's first level; in the
        authors' code with labels alone, in anomalib always. It changes the student, not how it scores.
      anomaly_fraction: fraction of a batch that is labelled anomalies, with masks; it needs `protocol.name="supervised"`.
      epochs: passes over the normal images.
      learning_rate, target_rate, weight_decay: of AdamW; the target teacher has a rate of its own.
      alpha, beta: the score is the mean of the largest pixels of the smoothed map, see `weighted_score`; alpha=0, beta=0: of
        the largest one.
      sigma: of that smoothing, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if len(layers) != 3:
        raise UserError(f"detector.layers must name three levels for uninet, got {', '.join(layers)}")
    check_options("[1, inf)", epochs=epochs)
    check_options("(0, inf)", temperature=temperature, learning_rate=learning_rate)
    check_options("[0, inf)", target_rate=target_rate, weight_decay=weight_decay, sigma=sigma)
    check_options("[0, 1]", cosine_weight=cosine_weight, margin=margin, anomalous_margin=anomalous_margin)
    check_options("[0, 0.5]", alpha=alpha)
    check_options("[0, 1]", beta=beta)
    check_options("[0, 1)", anomaly_fraction=anomaly_fraction)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        levels, (student_key, head_key) = spec.features, jax.random.split(key)
        network = reverse_student(backbone, levels, split=True)
        student = network.init(student_key, [jnp.zeros(level.shape) for level in levels])
        # copies: the frozen variables are not the state's to donate
        target = {kind: jax.tree.map(jnp.array, frozen["backbone"].get(kind, {})) for kind in ("params", "batch_stats")}
        parts = {kind: {"student": student[kind], "target": target[kind]} for kind in target}
        if classify:
            depth = levels[0].shape[-1]
            parts["params"]["fc"] = linear(1, depth, "fc").init(head_key, jnp.zeros((1, depth)))["params"]
        if selection and learned_theta:
            parts["params"]["theta"] = {f"theta{i}": jnp.zeros(level.shape[-1]) for i, level in enumerate(levels, start=1)}
        return parts

    def pairs(variables, frozen, batch, valid=None):
        """Of each level the teachers' features, source first, beside what the student restores of the other teacher's, both
        `[2 B, h, w, C]`; and the running statistics."""
        own = {name: {kind: variables[kind][name] for kind in ("params", "batch_stats")} for name in ("student", "target")}
        network = {**frozen["backbone"], **own["target"]}
        if valid is None:
            target, stats = backbone.features(network, batch.image, layers), variables["batch_stats"]["target"]
        else:
            target, stats = backbone.features(network, batch.image, layers, train=True, valid=valid)
            valid = jnp.tile(valid, 2)
        both = [jnp.concatenate(pair) for pair in zip(target, batch.features, strict=True)]
        student = reverse_student(backbone, both, split=True)
        restored, changed = student.apply(own["student"], both, valid, mutable="batch_stats")
        crossed = [jnp.concatenate(pair) for pair in zip(batch.features, target, strict=True)]
        statistics = {"student": changed["batch_stats"], "target": stats}
        return list(zip(crossed, restored, strict=True)), {"batch_stats": statistics}

    def mean_where(values, where):
        number = jnp.maximum(all_sum(jnp.sum(where)), 1).astype(values.dtype)
        return jnp.sum(jnp.where(where, values, 0)) / number

    def loss(key, variables, frozen, batch):
        del key
        levels, changed = pairs(variables, frozen, batch, batch.valid)
        valid, mask = jnp.tile(batch.valid, 2), jnp.tile(batch.mask, (2, 1, 1))[..., None]
        totals = dict.fromkeys(("loss_cosine", "loss_contrastive", "loss_margin"), 0.0)
        for i, (t, s) in enumerate(levels, start=1):
            if selection and learned_theta:
                theta = 0.5 + jax.nn.sigmoid(variables["params"]["theta"][f"theta{i}"])
                # theta begins at its largest value, 1, where jnp.minimum would halve its gradient
                s = select(s, t, jnp.where(theta <= 1, theta, 1))
            elif selection:
                s = select(s, t, 1.0)
            t, s = ops.unit(t), ops.unit(s)
            anomalous = ops.resize_nearest(mask, t.shape[1:3])[..., 0] > 0
            normal, anomalous = (valid[:, None, None] & where for where in (~anomalous, anomalous))
            p = jnp.exp(log_match(s, t, temperature))
            # twice the mean over both teachers is the sum of theirs
            totals["loss_cosine"] += 2 * losses.mean(1 - jnp.sum(t * s, axis=-1).mean(axis=(1, 2)), valid)
            totals["loss_contrastive"] -= 2 * mean_where(jnp.log(p + 1e-8), normal)
            totals["loss_margin"] += 2 * mean_where(jnp.maximum(margin - p, 0), normal)
            totals["loss_margin"] += 2 * mean_where(jnp.maximum(p - anomalous_margin, 0), anomalous)
        value = cosine_weight * totals["loss_cosine"] + (1 - cosine_weight) * totals["loss_contrastive"] + totals["loss_margin"]
        if classify:
            finest, label = levels[0][1], jnp.tile(batch.label, 2).astype(value.dtype)
            head, own = linear(1, finest.shape[-1], "fc"), {"params": variables["params"]["fc"]}
            logits = head.apply(own, ops.level_means([finest]))[:, 0]
            value += 2 * losses.mean(optax.losses.sigmoid_binary_cross_entropy(logits, label), valid)
        return value, (changed, totals)

    def predict(variables, frozen, batch):
        levels, _ = pairs(variables, frozen, batch)
        size, maps, largest = batch.image.shape[1:3], 0.0, []
        for t, s in levels:
            distance = optax.losses.cosine_distance(t, s, axis=-1, epsilon=1e-16)
            source, target = jnp.split(distance, 2)
            maps += ops.anomaly_map(source + target, size, align_corners=True)
            largest += [each.max(axis=(1, 2)) for each in (source, target)]
        smooth = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(weighted_score(jnp.stack(largest, axis=1), smooth, alpha, beta), maps)

    def optimizer(spec):
        del spec
        rates = {"student": learning_rate, "target": target_rate}
        return optax.multi_transform(
            {name: optax.adamw(rate, weight_decay=weight_decay) for name, rate in rates.items()},
            lambda params: {name: "target" if name == "target" else "student" for name in params},
        )

    phase = {"epochs": epochs, "anomaly_fraction": anomaly_fraction, "needs_image": True}
    return gradient(init_variables, loss, predict, optimizer, embed=embed, **phase)
