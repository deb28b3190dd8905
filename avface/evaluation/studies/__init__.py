"""Evaluations of single stages and of the synthetic data, run by `python -m avface.evaluation.studies.NAME`."""
