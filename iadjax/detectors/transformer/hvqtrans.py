"""HVQ-Trans: "Hierarchical Vector Quantized Transformer for Multi-class Unsupervised Anomaly Detection" (Lu et al., NeurIPS
2023, arXiv 2310.14228).

Tokens of features become codes of normal images at every layer of the encoder, and the decoder restores the features from
these codes alone. So it cannot copy what is anomalous. Each category has its own codes and its own last layer.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector
from iadjax.detectors.families.gradient import Trained, gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.restored import clipped_adamw, grid_features, pooled_prediction
from iadjax.errors import UserError
from iadjax.nn.feature_transformer import Layer, layer_norm, learned_positions
from iadjax.nn.layers import Conv, linear, uniform_bias, uniform_fan_in
from iadjax.nn.switched import SwitchedQuantizer

__all__ = ["HVQTrans", "hvqtrans"]


class HVQTrans(nn.Module):
    """Feature tokens `[B, h, w, C]` to their reconstruction, the sum of the commitment losses, and transport costs.

    Attributes:
      categories: number of codebooks at each level, and of last layers.
      hidden, heads, width, dropout: channels of the encoder, half of the decoder's; attention heads, feed-forward channels and
        dropout of both.
      num_layers: layers of the encoder and of the decoder.
      codes, decay, revive: of a codebook, see `SwitchedQuantizer`.
    """

    categories: int
    hidden: int
    heads: int
    width: int
    dropout: float
    num_layers: int
    codes: int
    decay: float
    revive: float

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        category: jax.Array,
        valid: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
        transport_levels: Sequence[int] = (),
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Restores the tokens from codes.

        Args:
          tokens: `[B, h, w, C]`.
          category: `[B]`; outside of the range: that whose codes of the deepest level are nearest.
          valid, key: see `SwitchedQuantizer`.
          train: with dropout.
          transport_levels: levels whose transport costs are added up; 0 is the first layer's input.

        Returns:
          `[B, h, w, C]`, `[B]` and `[B, h, w]`.
        """
        batch, height, width, channels = tokens.shape
        n, top = self.num_layers, self.categories
        options = {"dense": linear, "out_init": uniform_fan_in}

        def layer(kind, name):
            return Layer(self.heads, self.width, self.dropout, kind, name=name, **options)

        position = learned_positions(self, (height, width), self.hidden)
        levels = [Conv(self.hidden, 1, name="quantize_conv_t")(tokens).reshape(batch, -1, self.hidden)]
        for i in range(n):
            levels.append(layer("encoder", f"encoder_layers_{i}")(levels[-1], levels[-1], position, None, train))

        keys = [None] * (n + 1) if key is None else jax.random.split(key, n + 1)
        books = [
            SwitchedQuantizer(
                top, self.codes, self.hidden * (1 + (i < n)), self.decay, revive=self.revive, name=f"quantize_{i}"
            )
            for i in range(n + 1)
        ]
        if top == 1:
            category = jnp.zeros_like(category)
        else:
            known = (category >= 0) & (category < top)
            category = jnp.where(known, category, books[n].nearest(levels[n]))
        deepest, commitment = books[n](levels[n], category, valid, keys[n])
        cost = jnp.zeros((batch, height * width), tokens.dtype)
        codes = []
        for i in reversed(range(n + 1)):
            # every other level sees the codes of the deepest one (section 3.2)
            z = levels[n] if i == n else jnp.concatenate([levels[i], deepest], axis=-1)
            if i in transport_levels:
                cost += books[i].transport(z, category)
            if i < n:
                found, loss = books[i](z, category, valid, keys[i])
                codes.append(found)
                commitment += loss

        y, both = codes[0], jnp.concatenate([position, position], axis=-1)
        for i, memory in enumerate(codes):
            y = layer("decoder", f"decoder_layers_{i}")(y, memory, both, None, train)
        y, depth = layer_norm("decoder_norm")(y), 2 * self.hidden
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
        kernel = self.param("output_proj_kernel", init, (top, depth, channels))
        bias = self.param("output_proj_bias", uniform_bias(depth), (top, channels))
        y = jnp.einsum("bnd,bdc->bnc", y, kernel[category]) + bias[category][:, None]
        return y.reshape(tokens.shape), commitment, cost.reshape(batch, height, width)


def hvqtrans(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    stride: int = 16,
    hidden: int = 256,
    heads: int = 8,
    num_layers: int = 4,
    width: int = 1024,
    dropout: float = 0.1,
    codes: int = 512,
    decay: float = 0.99,
    revive: float = 0.0,
    commitment: float = 0.25,
    transport_weight: float = 80.0,
    transport_levels: Sequence[int] = (0,),
    pool_size: int = 16,
    epochs: int = 1000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.1,
    decay_at: float = 0.8,
) -> Detector:
    """Builds HVQ-Trans.

    Map: Euclidean distance between features and their reconstruction, plus `transport_weight` times the expected cosine
    distance of tokens to their codes, in [0, 2].

    The defaults are those of the authors' code (github.com/RuiyingLu/HVQ-Trans, no licence: written from facts alone), with the
    transport cost of its model HVQ_TR_switch_OT. The paper trains the codes by that cost too; the code does not, and neither
    does this. There the layers begin as copies of one, here each draws its weights. There the codes move after each image of a
    batch, here after the batch, which is the same where no two images have a category in common.

    The category of an image must be known, as in the authors' code. Where it is not, or was not fitted, the image gets the
    category whose codes of the deepest level are nearest, which is ours.

    Args:
      backbone: frozen network; EfficientNet-B4 up to 272 channels in the paper. `efficientnet_b4_static` has the padding of
        the authors' code.
      layers: the levels of the features, resized to one grid and concatenated.
      stride: of that grid, in pixels of the input: 16 makes 14 x 14 tokens of 224 x 224.
      hidden: channels of the encoder and of the codes of its last layer; other codes and the decoder have twice as many.
      heads, width, dropout: attention heads, feed-forward channels and dropout of the transformer.
      num_layers: of the encoder, and of the decoder: each of its layers attends to the codes of one level, the deepest last but
        one first.
      codes: in each codebook.
      decay: of the codes' moving means.
      revive: a code that an image uses less than so often, in the moving mean, moves to a random token; 0: none does, as in
        the authors' code. Short runs need it.
      commitment: weight of the distances of tokens to their codes.
      transport_weight: of the transport cost in the map; 0: the authors' model without it (HVQ_TR_switch).
      transport_levels: levels whose costs are added up; 0: tokens before the encoder, `num_layers`: after its last layer. The
        authors' code has the sum of all as a comment.
      pool_size: the image score is the maximum of the map averaged over windows of this side.
      epochs, learning_rate, weight_decay, clip_norm, decay_at: AdamW's, and the largest norm of a gradient; the rate drops to
        a tenth after the fraction `decay_at` of the epochs.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", stride=stride, heads=heads, num_layers=num_layers, width=width, pool_size=pool_size)
    check_options("[1, inf)", codes=codes, epochs=epochs)
    check_options("[2, inf)", hidden=hidden)
    check_options("[0, 1)", dropout=dropout, decay=decay)
    check_options("[0, 1]", decay_at=decay_at)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", revive=revive, commitment=commitment, transport_weight=transport_weight)
    check_options("[0, inf)", weight_decay=weight_decay, clip_norm=clip_norm)
    if hidden % heads or hidden % 2:
        raise UserError(f"detector.hidden must be even and a multiple of detector.heads, got {hidden} and {heads}")
    if not set(transport_levels) <= set(range(num_layers + 1)):
        raise UserError(f"detector.transport_levels must be in 0 to {num_layers}, got {tuple(transport_levels)}")
    scored = tuple(transport_levels) if transport_weight else ()

    def network(categories):
        return HVQTrans(categories, hidden, heads, width, dropout, num_layers, codes, decay, revive)

    def restored(variables, batch, **options):
        # the state says how many categories there are
        number = len(variables["params"]["output_proj_bias"])
        return network(number).apply(variables, batch.features, batch.category, **options)

    def init_variables(key, frozen, spec):
        del frozen
        return network(len(spec.categories)).init(key, jnp.zeros(spec.features.shape), jnp.zeros(1, jnp.int32))

    def loss(key, variables, frozen, batch):
        del frozen
        dropout_key, code_key = jax.random.split(key)
        options = {"valid": batch.valid, "key": code_key, "train": True, "rngs": {"dropout": dropout_key}}
        (f_rec, committed, _), changed = restored(variables, batch, **options, mutable="codebook")
        parts = {
            "loss_features": losses.mean(losses.mse(f_rec, batch.features), batch.valid),
            "loss_codes": commitment * losses.mean(committed, batch.valid),
        }
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        del frozen
        f_rec, _, cost = restored(variables, batch, transport_levels=scored)
        s = jnp.linalg.norm(batch.features - f_rec, axis=-1) + transport_weight * cost
        return pooled_prediction(s, batch.image.shape[1:3], pool_size)

    def warm_start(fresh, old):
        # sets of codes for other categories begin anew; copies: the driver donates the state
        kept = jax.tree.map(lambda new, was: jnp.array(was) if new.shape == was.shape else new, fresh.variables, old.variables)
        return Trained(kept, fresh.optimizer)

    optimizer = clipped_adamw(learning_rate, weight_decay, clip_norm, decay_at, epochs)
    embed = grid_features(backbone, layers, stride)
    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)._replace(warm_start=warm_start)
