"""All scenarios: at least one for every row of the verdict, cause and where tables."""

from tests.scenarios import cases_blocked, cases_proven, cases_untested

SCENARIOS = (*cases_proven.SCENARIOS, *cases_blocked.SCENARIOS, *cases_untested.SCENARIOS)
