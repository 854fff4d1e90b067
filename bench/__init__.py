"""Measurements: commands that make the figures of docs/performance.md. Not part of the tests."""
