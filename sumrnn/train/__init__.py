"""One run, pure: `fit(config, seed)`, and the parts that it is made of."""

from sumrnn.train.loop import Metrics as Metrics
from sumrnn.train.loop import Result as Result
from sumrnn.train.loop import fit as fit
from sumrnn.train.step import State as State
