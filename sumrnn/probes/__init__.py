"""What trained networks do beyond their own task: tables that are measured once a run has ended."""
