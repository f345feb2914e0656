"""The benchmarks: what they compute, and as real processes on small work."""
