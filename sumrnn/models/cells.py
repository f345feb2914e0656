"""The recurrent cells by name: those of Flax, and a linear recurrence.

A cell is a Linen module of `features`, which maps carry and inputs [batch, k] to the next carry and
its output.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

MEMORY = 1_000.0
"""Steps up to which the cells of a linear recurrence remember at first."""


class LinearCell(nn.Module):
    """h becomes a h + W x + b, with a decay a between 0 and 1 for each cell.

    A minimal diagonal recurrence, of real numbers, after A. Orvieto et al., Resurrecting recurrent
    neural networks for long sequences, arXiv 2303.06349.
    """

    features: int

    def setup(self) -> None:
        """Decays whose memories of u steps, a = u / (1 + u), are spread evenly over ln u."""

        def log_memories(key: chex.PRNGKey) -> chex.Array:
            return jax.random.uniform(key, (self.features,), maxval=jnp.log(MEMORY))

        self.log_memory = self.param("log_memory", log_memories)
        self.input = nn.Dense(self.features)

    def __call__(self, carry: chex.Array, inputs: chex.Array) -> tuple[chex.Array, chex.Array]:
        """One step, of inputs [batch, k]."""
        hidden = jax.nn.sigmoid(self.log_memory) * carry + self.input(inputs)
        return hidden, hidden

    def last(self, inputs: chex.Array, read: chex.Array | None = None) -> chex.Array:
        """The state [batch, features] after inputs [batch, length, k], by an associative scan.

        Only inputs where `read` [batch, length, 1] holds are read, which must be the last ones.
        """

        def join(first: Any, second: Any) -> Any:
            (decay, state), (later_decay, later_state) = first, second
            return later_decay * decay, later_decay * state + later_state

        added = self.input(inputs) if read is None else jnp.where(read, self.input(inputs), 0)
        decays = jnp.broadcast_to(jax.nn.sigmoid(self.log_memory), added.shape)
        _, states = jax.lax.associative_scan(join, (decays, added), axis=1)
        last: chex.Array = states[:, -1]
        return last


CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (nn.OptimizedLSTMCell, {}),
    "gru": (nn.GRUCell, {}),
    "mgu": (nn.MGUCell, {}),
    "simple": (nn.SimpleCell, {}),
    "simple-relu": (nn.SimpleCell, {"activation_fn": nn.relu}),
    "linear": (LinearCell, {}),
}
"""The module of each cell, and its settings; the names are those of `ModelConfig.cell`."""


def cell_module(cell: str, features: int, name: str | None = None) -> nn.Module:
    """The cell of a name in `CELLS`; as a part of another module it has a `name` there."""
    kind, settings = CELLS[cell]
    module: nn.Module = kind(features=features, name=name, **settings)
    return module


def zero_carry(name: str, batch: int, features: int) -> Any:
    """The carry of zeros that series begin with."""
    zero = jnp.zeros((batch, features))
    return (zero, zero) if name == "lstm" else zero


def hidden_state(name: str, carry: Any) -> chex.Array:
    """The hidden state [batch, features] in a carry, which the output reads."""
    hidden: chex.Array = carry[1] if name == "lstm" else carry
    return hidden
