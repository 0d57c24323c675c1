"""Bayesian optimisation in the latent of a funnel, stage by stage."""
