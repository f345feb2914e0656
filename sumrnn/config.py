"""What a run is: frozen dataclasses; the range of every field stands beside it.

A run is a pure function of (`Config`, seed).  An impossible value raises a `UserError` that names
field, value and what is allowed.
"""

import dataclasses
from typing import Annotated, Literal

from sumrnn import fields
from sumrnn.errors import require
from sumrnn.fields import Pattern, Range
from sumrnn.seeds import Seed

MAX_ELEMENTS = 2**31 - 1  # JAX indexes with int32 unless told otherwise.
MAX_LENGTH = 10_000
"""The largest number of digits of a series."""
MAX_DIGIT = 255  # Digits are stored as uint8.
MAX_PMF_TABLE = 2**20
"""The largest `TaskConfig.pmf_table_size` with which fresh series near the threshold are drawn."""
MAX_SUMS = 100_000
"""The largest length x (high - low): the exact law of the sum takes about a second for so many
sums, and time that grows with their square."""

Name = Annotated[
    str,
    Pattern("[a-z0-9][a-z0-9.-]{0,99}", "up to 100 lower-case letters, digits, dots and hyphens"),
]
"""A name of runs, experiments or conditions, which stands in paths and in titles of figures."""
Rate = Annotated[float, Range(1e-37, 1e38, "Adam computes in float32")]
Beta = Annotated[float, Range(0, 0.999999, "in float32 1 - beta is rounded too much above it")]
Fraction = Annotated[float, Range(1e-10, 1 - 1e-10, "a share of the series")]
Epsilon = Annotated[
    float, Range(1e-15, 1e38, "squares that vanish in float32 need more than almost nothing")
]


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The data: series of random digits, labelled by whether their sum reaches a threshold."""

    size: Annotated[int, Range(1, MAX_ELEMENTS)] = 10_000
    """Number of series: training, validation and test together."""
    length: Annotated[int, Range(1, MAX_LENGTH)] = 30
    """Digits per series."""
    low: Annotated[int, Range(0, MAX_DIGIT)] = 0
    """Lowest digit, inclusive."""
    high: Annotated[int, Range(0, MAX_DIGIT)] = 9
    """Highest digit, inclusive."""
    threshold: int = 100
    """Label 1 if the sum of the digits is at least this."""
    test_fraction: Fraction = 0.2
    """Share of all series held out for the test."""
    validation_fraction: Fraction = 0.1
    """Share of the remaining series, the last ones, held out for validation."""

    def __post_init__(self) -> None:
        fields.check(self)
        elements = self.size * self.length
        limit = f"at most {MAX_ELEMENTS} digits in all (size x length is {elements})"
        require(elements <= MAX_ELEMENTS, "size", self.size, limit)
        Range(self.low, MAX_DIGIT, "low is the lower end").require("high", self.high)
        lowest, highest = self.length * self.low, self.length * self.high
        limit = f"short enough: at most {MAX_SUMS} for length x (high - low)"
        require(highest - lowest <= MAX_SUMS, "length", self.length, limit)
        Range(lowest, highest, "the sums a series can have").require("threshold", self.threshold)
        sizes = (self.train_size, self.validation_size, self.test_size)
        require(
            min(sizes) >= 1,
            "size",
            self.size,
            f"large enough for every split (now {sizes[0]} training, {sizes[1]} validation "
            f"and {sizes[2]} test series)",
        )

    @property
    def pmf_table_size(self) -> int:
        """The number of entries of `task.log_pmf_table`: (length + 1) x number of sums."""
        return (self.length + 1) * (self.length * (self.high - self.low) + 1)

    @property
    def test_size(self) -> int:
        """Number of test series."""
        return round(self.size * self.test_fraction)

    @property
    def validation_size(self) -> int:
        """Number of validation series."""
        return round((self.size - self.test_size) * self.validation_fraction)

    @property
    def train_size(self) -> int:
        """Number of series that the network is fitted to."""
        return self.size - self.test_size - self.validation_size


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: recurrent cells, then one linear output."""

    cells: Annotated[int, Range(1, 16_384)] = 200
    """Recurrent cells."""
    initializer: Literal["keras", "flax", "counter", "uneven-counter"] = "keras"
    """keras: the four gates are one matrix; flax: each gate has its own; counter: nothing is drawn,
    the network counts by construction; uneven-counter: so too, with cells that differ and weights
    nearer to a trained network's size."""
    weights: Annotated[str, Pattern("[0-9a-f]{64}", "the SHA-256 of a file")] | None = None
    """SHA-256 of the file of weights that training starts from (--init-from); None: the weights
    are initialized."""
    noise: Annotated[float, Range(0, 1e3)] = 0.0
    """Standard deviation of the normal noise in every initial parameter, as a share of it."""
    recurrence: Literal["fused", "scan"] = "fused"
    """fused: hand-written backward pass; scan: nn.scan over Flax's cell, the reference."""
    input_center: Annotated[float, Range(-1_000, 1_000)] = 0.0
    """Number that is subtracted from every digit."""
    input_scale: Annotated[float, Range(1e-3, 1e3)] = 1.0
    """Number that every digit is divided by after `input_center` was subtracted."""
    cell: Literal["lstm", "gru", "mgu", "simple", "simple-relu", "linear"] = "lstm"
    """What the cells are: those of Flax by name (simple: tanh), or a diagonal linear recurrence.
    Only the LSTM is fused, takes other initial weights than Flax's, and is exported."""
    memory: Annotated[float, Range(3, 1e6)] | None = None
    """Steps that cells remember at first, at most: biases of forget gates are ln u and of input
    gates -ln u, u uniform from 1 to memory - 1 (Tallec and Ollivier, arXiv 1804.11188); None: those
    of the initializer."""
    forget_bias: Annotated[float, Range(-100, 100)] | None = None
    """Bias of all forget gates at first; None: that of the initializer, 1 of keras, 0 of flax."""

    ADDED = ("cell", "memory", "forget_bias")
    """Fields that the JSON of earlier versions lacks, for which the default is what they did."""

    def __post_init__(self) -> None:
        fields.check(self)
        require(self.weights is None or not self.noise, "noise", self.noise, "0 for given weights")
        built, lstm = self.initializer in ("counter", "uneven-counter"), self.cell == "lstm"
        drawn = not built and self.weights is None
        require(drawn or lstm, "cell", self.cell, "lstm for weights that are given or count")
        for name in ("memory", "forget_bias"):
            value, limit = getattr(self, name), "None unless an LSTM's weights are random"
            require((drawn and lstm) or value is None, name, value, limit)
        if self.memory is not None:
            limit = "None with a memory, which gives it"
            require(self.forget_bias is None, "forget_bias", self.forget_bias, limit)
        if self.initializer == "counter":
            limit = "left as it is: the counter takes digits as they are"
            require(self.input_center == 0, "input_center", self.input_center, limit)
            require(self.input_scale == 1, "input_scale", self.input_scale, limit)

    @property
    def fused(self) -> bool:
        """Whether the recurrence is the fused one, which other cells than the LSTM do not have."""
        return self.recurrence == "fused" and self.cell == "lstm"

    @property
    def scales(self) -> bool:
        """Whether `input_center` and `input_scale` change the digits."""
        return (self.input_center, self.input_scale) != (0, 1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The procedure: epochs of shuffled mini-batches, Adam on the binary cross-entropy."""

    epochs: Annotated[int, Range(1, 1_000_000)] = 60
    """Passes over the training series."""
    batch_size: Annotated[int, Range(1, MAX_ELEMENTS)] = 50
    """Series per step; the last step of an epoch takes what is left."""
    batch_shards: Annotated[int, Range(1, 1_024)] = 2
    """Parts of each batch whose gradients are summed; each may have a device of its own."""
    learning_rate: Rate = 1e-3
    """Adam's step size."""
    beta1: Beta = 0.9
    """Adam's decay of the gradient's mean, per step."""
    beta2: Beta = 0.999
    """Adam's decay of the gradient's square, per step."""
    epsilon: Epsilon = 1e-8
    """Adam's constant in the denominator."""
    warmup: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of all steps over which the step size rises from 0."""
    decay: Literal["none", "cosine"] = "none"
    """cosine: the step size falls to 0 at the last step."""
    clip: Annotated[float, Range(1e-10, 1e10)] | None = None
    """Largest norm of a gradient, to which a longer one is scaled down; None: any norm."""
    series: Literal["repeated", "fresh"] = "repeated"
    """fresh: every epoch draws new training series instead of those of the data."""
    focus: Annotated[float, Range(0, 0.999)] = 0.0
    """Share of each batch of fresh series whose sums are drawn uniformly near the threshold."""
    focus_reach: Annotated[int, Range(1, 10_000)] = 4
    """Reach of these sums: from threshold - reach to threshold + reach - 1."""
    focus_start: Annotated[int, Range(1, 10_000)] | None = None
    """Reach of the first epoch, from which it narrows to `focus_reach` by a factor per epoch;
    None: every epoch has `focus_reach`."""
    min_digits: Annotated[int, Range(1, MAX_LENGTH)] | None = None
    """Digits of a fresh series at least, at most `length`; all other steps are zeros among them.
    None: as many digits as steps."""
    min_steps: Annotated[int, Range(1, MAX_LENGTH)] | None = None
    """Steps of such a series at least, at most `length`, and not fewer than its digits; None: as
    many as `length`."""
    max_hold: Annotated[int, Range(1, 1_000_000)] = 1
    """Steps that a zero before a digit or the end lasts at most, log-uniformly from 1: its gates
    stay as they are at the first of them, so that it is computed as one."""

    ADDED = ("min_digits", "min_steps", "max_hold")
    """Fields that the JSON of earlier versions lacks, for which the default is what they did."""
    GONE = (("average", 0.0), ("batch_growth", 1))
    """Fields of earlier versions, as they are in the JSON of runs that did not use them."""

    def __post_init__(self) -> None:
        fields.check(self)

    @property
    def lasting(self) -> bool:
        """Whether steps of training have durations: also a series that begins later has them, 0."""
        return self.min_steps is not None or self.max_hold > 1

    @property
    def planned(self) -> bool:
        """Whether a training step depends on the number of all steps of the run."""
        narrows = self.focus_start is not None
        return narrows or self.warmup > 0 or self.decay != "none"


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that, with a seed, determines a run."""

    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    data_seed: Seed | None = None
    """Seed of the digits; None: the run's seed."""
    init_seed: Seed | None = None
    """Seed of the initial parameters; None: the run's seed."""
    shuffle_seed: Seed | None = None
    """Seed of the order of the training series; None: the run's seed."""

    def __post_init__(self) -> None:
        fields.check(self)
        task, train = self.task, self.train
        batch_sizes = Range(1, task.train_size, "the number of training series")
        batch_sizes.require("batch_size", train.batch_size)
        if train.planned:
            max_epochs = MAX_ELEMENTS // -(-task.train_size // train.batch_size)
            limit = f"at most {max_epochs}, so that the steps of a plan can be counted"
            require(train.epochs <= max_epochs, "epochs", train.epochs, limit)
        if train.focus:
            require(train.series == "fresh", "focus", train.focus, "0 unless series are fresh")
            lowest, highest = task.length * task.low, task.length * task.high
            max_reach = min(task.threshold - lowest, highest - task.threshold + 1)
            limit = f"at most {max_reach}, where the sums that a series can have end"
            require(train.focus_reach <= max_reach, "focus_reach", train.focus_reach, limit)
            if train.focus_start is not None:
                limits = Range(train.focus_reach, max_reach, "from focus_reach to the last sum")
                limits.require("focus_start", train.focus_start)
            entries = task.pmf_table_size
            limit = (
                f"0 for such long series ((length + 1) x sums is {entries}, above {MAX_PMF_TABLE})"
            )
            require(entries <= MAX_PMF_TABLE, "focus", train.focus, limit)
        else:
            for name in ("focus_start", "focus_reach"):
                value, usual = getattr(train, name), getattr(TrainConfig, name)
                require(value == usual, name, value, f"{usual} without a focus")
        self._check_zeros()

    def _check_zeros(self) -> None:
        """Raises `UserError` for zeros among digits that this task or network cannot have."""
        task, train = self.task, self.train
        if train.min_digits is None:
            for name, usual in (("max_hold", 1), ("min_steps", None)):
                value = getattr(train, name)
                require(value == usual, name, value, f"{usual} without min_digits")
            return
        require(train.series == "fresh", "min_digits", train.min_digits, "None for repeated series")
        lowest, note = 1, "the task's length"
        if train.focus:
            last = task.threshold + (train.focus_start or train.focus_reach) - 1
            lowest, note = max(1, -(-last // max(1, task.high))), "with focused sums"
        Range(lowest, task.length, note).require("min_digits", train.min_digits)
        if train.min_steps is not None:
            Range(1, task.length, "the task's length").require("min_steps", train.min_steps)
        name = "recurrence" if self.model.cell == "lstm" else "cell"
        limit = "that of a fused LSTM where zeros last (max_hold)"
        fits = train.max_hold == 1 or self.model.fused
        require(fits, name, getattr(self.model, name), limit)

    @property
    def unpinned(self) -> "Config":
        """This config without pinned seeds: data, initial weights and order follow the run's."""
        return dataclasses.replace(self, data_seed=None, init_seed=None, shuffle_seed=None)

    @property
    def canonical(self) -> "Config":
        """The representative of all configs whose runs are computed by the same programs.

        It has no pinned seeds, no file of weights, and one epoch unless the training is `planned`.
        """
        model = dataclasses.replace(self.model, weights=None)
        epochs = self.train.epochs if self.train.planned else 1
        train = dataclasses.replace(self.train, epochs=epochs)
        return dataclasses.replace(self.unpinned, model=model, train=train)
