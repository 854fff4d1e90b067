"""Clauses about agents, for the sentences of records and findings."""

from preflight.model.observation import AgentObservation

_STATES = {
    "unreachable": "agent was not reached",
    "refused": "agent refused to take part",
    "lost": "agent was lost during the run",
}


def agent_note(agent: AgentObservation) -> str:
    """One clause about an agent that can't vouch for anything."""
    if agent.state in _STATES:
        said = _STATES[agent.state]
    elif agent.confirmation is not None:
        said = "agent was restarted during the run"
    else:
        said = "agent did not confirm its listeners"
    return f"{agent.node}'s {said} ({agent.detail})" if agent.detail else f"{agent.node}'s {said}"
