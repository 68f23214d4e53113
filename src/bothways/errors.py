"""What can go wrong and be mended by the user; every message says found, expected, and what to do."""


class BothwaysError(Exception):
    """Something the user can mend: the command line prints it as one line and exits with 2."""


class DataError(BothwaysError):
    """A file of examples that cannot be used as it is; the message begins with file:line."""


class CheckpointError(BothwaysError):
    """A model directory or weights file that does not hold what it should."""


class ModelNotFoundError(BothwaysError):
    """A model name that no source could supply; the message lists what was tried."""


class OptionError(BothwaysError):
    """Options that contradict each other, the data or the model."""


class InterruptedRunError(BothwaysError):
    """The user stopped a run; everything is saved and the message says how to go on."""


class MissingDependencyError(BothwaysError):
    """A job that needs an extra which is not installed; the message names the pip command."""
