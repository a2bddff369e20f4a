"""The one exception tree of the agent package."""


class AgentError(Exception):
    """Something the owner must know; the text says what to do next."""


class ModelError(AgentError):
    """A model could not be loaded or did not answer."""


class ModelUnavailable(ModelError):
    """The server of a model does not answer now; it may later, and nothing is lost by waiting."""


class SandboxError(AgentError):
    """No sandbox may run this code on this machine."""


class ChangeError(AgentError):
    """What the agent made of its workspace cannot be a solution; the text is why."""


class WorkplaceError(AgentError):
    """A task cannot be opened on this machine."""


class CallError(AgentError):
    """The model's turn is not a call that can be executed; the text is the correction shown to it."""
