"""What the answers of a network are worth: scores of one run, and statistics over many."""
