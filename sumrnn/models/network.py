"""The network: recurrent cells over the digits, and one linear output on their last state.

Its weights have two forms.  Training computes with `Weights`, drawn by `initializer.init`, and
looks into them nowhere.  Files, other programs and people have `Params`, by the names of Flax;
`to_flax` and `from_flax` lead from one form to the other.
"""

from typing import Any, NamedTuple, TypeAlias, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sumrnn.config import ModelConfig
from sumrnn.models.cells import cell_module, hidden_state, zero_carry
from sumrnn.models.lstm import GATES, last_hidden, lstm_workspace

Params = dict[str, dict[str, Any]]
"""{"lstm": {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}, "output"}, each with a
kernel and, but for the "i*", a bias; float32.  Other cells than the LSTM have theirs in "lstm"'s
place, under their name."""


class SumRNN(nn.Module):
    """Reads a series of digits and returns the logit of P(sum >= threshold)."""

    cells: int
    cell: str = "lstm"
    """Its name in `CELLS`, and that of its parameters."""

    @nn.compact
    def __call__(self, inputs: chex.Array, durations: chex.Array | None = None) -> chex.Array:
        """Maps digits [batch, length], of any real dtype, to logits float32 [batch].

        A step whose duration, [batch, length], is 0 is left out; any other lasts 1.
        """
        inputs = inputs.astype(jnp.float32)[..., None]
        read = None if durations is None else (durations > 0)[..., None]
        cell: Any = cell_module(self.cell, self.cells, name=self.cell)
        if self.cell == "linear":
            hidden = cell.last(inputs, read)
        else:

            def step(cell: Any, carry: Any, x: tuple[chex.Array, Any]) -> tuple[Any, None]:
                after, _ = cell(carry, x[0])
                return (after if x[1] is None else _where(x[1], after, carry)), None

            scan: Any = nn.scan(
                step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1
            )
            zero = zero_carry(self.cell, inputs.shape[0], self.cells)
            carry, _ = scan(cell, zero, (inputs, read))
            hidden = hidden_state(self.cell, carry)
        output = nn.Dense(1, kernel_init=nn.initializers.glorot_uniform(), name="output")
        return output(hidden)[..., 0]


def _where(condition: chex.Array, carry: Any, other: Any) -> Any:
    """The one carry where the condition [batch, 1] holds, and otherwise the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), carry, other)


class Packed(NamedTuple):
    """The weights as the fused recurrence multiplies with them; float32."""

    lstm: chex.Array
    """[cells + 2, 4 cells]; see `lstm.last_hidden`."""
    output: chex.Array
    """[cells + 1]: kernel, then bias."""


Weights: TypeAlias = Any
"""A tree of float32 arrays: `Packed` for the fused recurrence, `Params` for the scanned one.

Its type says nothing, as nobody else needs to know."""


def to_flax(weights: Weights) -> Params:
    """The weights by the names of Flax; their arrays may have axes in front, such as of seeds."""
    return unpack(weights) if isinstance(weights, Packed) else weights


def from_flax(params: Params, config: ModelConfig) -> Weights:
    """The inverse of `to_flax`: the weights in the form that the config's recurrence takes."""
    return pack(params) if config.fused else params


def pack(params: Params) -> Packed:
    """The parameters as two arrays, NumPy's if they are; there may be axes in front."""
    lstm, output = params["lstm"], params["output"]
    module: Any = jnp if isinstance(output["bias"], jax.Array) else np

    def column(gate: str) -> chex.Array:
        bias = lstm[f"h{gate}"]["bias"][..., None, :]
        kernels = (lstm[f"h{gate}"]["kernel"], lstm[f"i{gate}"]["kernel"], bias)
        return module.concatenate(kernels, axis=-2)

    return Packed(
        module.concatenate([column(gate) for gate in GATES], axis=-1),
        module.concatenate((output["kernel"][..., 0], output["bias"]), axis=-1),
    )


def unpack(packed: Packed) -> Params:
    """The inverse of `pack`."""
    params: Params = {"lstm": {}}
    width = packed.lstm.shape[-1] // len(GATES)
    for number, gate in enumerate(GATES):
        column = packed.lstm[..., number * width : (number + 1) * width]
        params["lstm"][f"i{gate}"] = {"kernel": column[..., -2:-1, :]}
        params["lstm"][f"h{gate}"] = {"kernel": column[..., :-2, :], "bias": column[..., -1, :]}
    output = packed.output
    params["output"] = {"kernel": output[..., :-1, None], "bias": output[..., -1:]}
    return params


def workspace(config: ModelConfig, batch: int, length: int, *, lasting: bool = False) -> Any:
    """Arrays that `logits` of digits [batch, length] works with in training.

    `lasting` says whether steps have durations.  It is a tree without leaves where the recurrence
    is "scan".
    """
    if not config.fused:
        return ()
    return lstm_workspace(batch, length, config.cells, lasting=lasting)


def logits(
    weights: Weights,
    config: ModelConfig,
    digits: chex.Array,
    *,
    durations: chex.Array | None = None,
    workspace: Any = None,
) -> chex.Array:
    """The network's logits float32 [batch] of digits uint8 [batch, length], in full float32.

    The sigmoid of a logit is the estimate of P(label = 1).  Steps last 1, or the `durations`
    [batch, length] of `lstm.last_hidden`, of which others than the fused recurrence know 0 and 1
    alone.  A `workspace`
    changes no number; by differentiation with respect to it, it comes back for the next gradient.
    """
    chex.assert_rank(digits, 2)
    chex.assert_type(jax.tree.leaves(weights), jnp.float32)
    inputs = _inputs(config, digits)
    # GPU and TPU multiply float32 with fewer bits unless told otherwise.
    with jax.default_matmul_precision("float32"):
        if isinstance(weights, Packed):
            if durations is not None:
                durations = durations.astype(jnp.float32)
            hidden = last_hidden(weights.lstm, inputs, durations, workspace)
            out: chex.Array = hidden @ weights.output[:-1] + weights.output[-1]
        else:
            network = SumRNN(config.cells, config.cell)
            out = cast(chex.Array, network.apply({"params": weights}, inputs, durations))
    chex.assert_shape(out, digits.shape[:1])
    chex.assert_type(out, jnp.float32)
    return out


def ragged_logits(
    params: Params, config: ModelConfig, digits: chex.Array, lengths: chex.Array
) -> chex.Array:
    """The logits float32 [batch] of series of different lengths, but for rounding as by `logits`.

    A series has the first `lengths`, int32 [batch], from 1, of its digits, uint8 [batch, longest]:
    its state stays as it is after the last one, and the loop ends with the longest series.
    """

    def step(t: chex.Numeric, carry: Any) -> Any:
        x = jax.lax.dynamic_index_in_dim(digits, t, axis=1)
        after, goes_on = _next_carry(params, config, carry, x), (t < lengths)[:, None]
        return _where(goes_on, after, carry)

    zero = zero_carry(config.cell, len(digits), config.cells)
    with jax.default_matmul_precision("float32"):
        carry = jax.lax.fori_loop(0, lengths.max(), step, zero)
        hidden = hidden_state(config.cell, carry)
        out: chex.Array = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return out[:, 0]


def states(
    params: Params, config: ModelConfig, digits: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """The states after each step of digits uint8 [batch, length].

    Returns cell states and hidden states, which are the same but for the LSTM, and the cell states
    that one zero more would leave; float32 [length, batch, cells] each.
    """

    def step(carry: Any, x: chex.Array) -> tuple[Any, Any]:
        carry = _next_carry(params, config, carry, x[:, None])
        after = _next_carry(params, config, carry, jnp.zeros_like(x)[:, None])
        cell, later = (jax.tree.leaves(state)[0] for state in (carry, after))
        return carry, (cell, hidden_state(config.cell, carry), later)

    zero = zero_carry(config.cell, len(digits), config.cells)
    with jax.default_matmul_precision("float32"):
        _, every = jax.lax.scan(step, zero, digits.T)
    return cast(tuple[chex.Array, chex.Array, chex.Array], every)


def _next_carry(params: Params, config: ModelConfig, carry: Any, digits: chex.Array) -> Any:
    """The carry after one more digit each, [batch, 1]."""
    module = cell_module(config.cell, config.cells)
    carry, _ = module.apply({"params": params[config.cell]}, carry, _inputs(config, digits))
    return carry


def _inputs(config: ModelConfig, digits: chex.Array) -> chex.Array:
    """What the network reads: digits as float32, centred and scaled as the config says."""
    inputs = digits.astype(jnp.float32)
    return (inputs - config.input_center) / config.input_scale if config.scales else inputs
