"""From what was seen to what it means: observations of both ends in, a report out. Pure.

`verdicts` is the way through; `rules` says what is true of a port, and in which order the
rules are asked; `catalog` says what there is to tell.
"""

from preflight.diagnosis.verdicts import diagnose, exit_code

__all__ = ["diagnose", "exit_code"]
