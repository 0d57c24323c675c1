"""A level -> a score -> the curve: metrics, baselines, MTEB at every level, costs, tables and plots."""
