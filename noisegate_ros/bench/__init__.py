"""Benchmarks of a model: what takes how long, side by side in one run, on the machine at hand."""
