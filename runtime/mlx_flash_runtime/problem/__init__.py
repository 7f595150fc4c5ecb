"""An attention call as data: its shapes, its mask by what it says, and the device. Nothing here
runs or looks anything up."""

from .arguments import fault, promoted
from .call import Attend, Call, Launch, as_float
from .device import Backend, Device
from .problem import PHASES, MaskKind, Phase, Problem, phase_of

__all__ = [
    "PHASES",
    "Attend",
    "Backend",
    "Call",
    "Device",
    "Launch",
    "MaskKind",
    "Phase",
    "Problem",
    "as_float",
    "fault",
    "phase_of",
    "promoted",
]
