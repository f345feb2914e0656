"""Can a recurrent network count?  A reference testbed in JAX and Flax.

The modules, each importing only from those above it:

    config    what a run is: frozen dataclasses, validated on construction
    task      the digits, their labels and splits, and the exact law of their sum
    model     an LSTM scanned over the digits, one logit at the end
    train     one run, pure: keys, data, initial state, step, epoch, prediction
    metrics   labels and logits -> scores that survive class skew
    runs      a run on disk: layout and atomic writes
    figures   what a person looks at
    report    what a person reads
    command   what every script shares: parsing, one-line errors, exit statuses
"""
