"""Can a recurrent network count?  A reference testbed in JAX and Flax.

The modules, each importing only from those above it:

    config      what a run is: frozen dataclasses, validated on construction
    task        the digits, their labels and splits, and the exact law of their sum
    recurrence  the LSTM's time steps with a hand-written backward pass
    model       an LSTM scanned over the digits, one logit at the end
    train       one run, pure: keys, data, initial state, step, epoch, prediction
    placement   which device does what: seeds and shards over devices and processes
    metrics     labels and logits -> scores that survive class skew
    statistics  one score over many runs: location, intervals, differences, variance
    files       files that are whole or not there, that prove it; locked folders
    checkpoint  all that a run needs to go on after an epoch
    runs        a run on disk: layout, and reading it back with every check
    signals     the first Ctrl-C or SIGTERM lets an epoch end, a second one ends at once
    recorder    trains seeds of one config and keeps each in its run folder
    batch       an experiment: its declaration, and its runs in one folder
    figures     what a person looks at
    report      what a person reads of a run
    summary     what a person reads of a batch
    command     what every script shares: parsing, one-line errors, exit statuses
"""
