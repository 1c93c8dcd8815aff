"""Errors that a user can act on; each kind has the exit code that the command line ends with."""


class OctavoError(Exception):
    """Something the user can put right; the message names file, key and value, and says what is allowed."""

    exit_code = 1


class ConfigError(OctavoError):
    """A command, scenario, profile, trace or task file is wrong."""

    exit_code = 2


class InfeasibleError(OctavoError):
    """No plan meets the target."""

    exit_code = 3


class MachineError(OctavoError):
    """This machine lacks something: a provider, a driver, memory, disk, a library."""

    exit_code = 4


class BundleError(OctavoError):
    """A bundle or checkpoint is missing, corrupt, unsafe or of an unknown format."""

    exit_code = 5


class GateError(OctavoError):
    """A check that was asked for (parity, validation, a threshold) failed."""

    exit_code = 6
