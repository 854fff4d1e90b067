"""Bytes <-> values, without any I/O: challenges, control messages, run files."""
