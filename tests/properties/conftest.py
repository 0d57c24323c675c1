"""Hypothesis draws the same cases on every run, and keeps none on disk."""

from hypothesis import HealthCheck, settings


settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)
settings.load_profile("fixed")
