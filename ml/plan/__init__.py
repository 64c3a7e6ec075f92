"""What a task costs before anything is staked: memory by part, bytes, time, for any Llama-type shape.

    models.py   shapes by name, folder or JSON, and their parameters
    memory.py   bytes of one GPU (or CPU process) and of the host
    work.py     operations and seconds
    measure.py  the speed of this machine, by a real step of one layer

Nothing here loads weights, and only `measure` needs torch.
"""

from ml.plan.memory import HostMemory, Memory, plan_host, plan_memory
from ml.plan.models import KNOWN, ModelShape, find_model
from ml.plan.setup import Setup
from ml.plan.work import DEVICES, Device, Speed, Work, assume_speed, plan_work

__all__ = [
    "DEVICES",
    "KNOWN",
    "Device",
    "HostMemory",
    "Memory",
    "ModelShape",
    "Setup",
    "Speed",
    "Work",
    "assume_speed",
    "find_model",
    "plan_host",
    "plan_memory",
    "plan_work",
]
