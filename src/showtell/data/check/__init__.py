"""Checks data sets, and reports the findings."""
