"""What every script shares; only scripts import it."""
