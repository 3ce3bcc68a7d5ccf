"""Measurements: ops at the sizes of real models, and whole components on random weights."""
