"""Clauses about agents, for the sentences of records and findings."""

from preflight.diagnosis.destination import confirmation_of
from preflight.diagnosis.index import Index
from preflight.model.observation import AgentObservation, Reason

_STATES = {
    "unreachable": "agent was not reached",
    "refused": "agent refused to take part",
    "lost": "agent was lost during the run",
}


INTERRUPTED = "interrupted: "
"""What the sentences of all flows begin with that the run's interruption left untested."""


LEFT_OUT = "left out by --sample"
"""What the sentences of flows begin with that the one who started the run left out."""


AT_SPEED = "perhaps too fast"
"""What the sentences of flows begin with of which only a slower run can tell."""


def was_not_called(agent: AgentObservation, index: Index) -> bool:
    """Whether the run was interrupted before this agent was reached: nothing is wrong with it."""
    return index.interrupted and agent.reason is Reason.NOT_CALLED


def agent_note(agent: AgentObservation) -> str:
    """One clause about an agent that can't vouch for anything."""
    if agent.state in _STATES:
        said = _STATES[agent.state]
    elif confirmation_of(agent) is not None:
        said = "agent stood still for some seconds, or lost a listener"
    elif agent.confirmation is not None:
        said = "agent was restarted during the run"
    else:
        said = "agent did not confirm its listeners"
    return f"{agent.node}'s {said} ({agent.detail})" if agent.detail else f"{agent.node}'s {said}"
