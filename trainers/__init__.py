"""Trainers of nested models, their arguments and their losses."""
