"""What a person reads and looks at: of one run, and of a batch of runs."""
