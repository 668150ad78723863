"""Shocks fitted to price tables, one kind a file: `fit_KIND(hourly, minute, level)` gives a spec and its report.

A report has `period`, `hours`, `scale`, `standard_errors` in the shape of the spec, and `notes`, lines for a reader.
"""
