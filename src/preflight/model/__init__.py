"""Frozen types that two stages exchange. No behaviour lives here.

The way of the data: `cluster` -> `plan` -> `observation` -> `report`.
"""
