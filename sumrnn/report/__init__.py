"""What a person reads and looks at: the report of one run, and that of an experiment."""
