"""What a person types: a module for each command, and what they share."""
