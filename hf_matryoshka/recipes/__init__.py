"""Whole jobs: data in, trained model out. What the command line and the benchmarks call."""
