"""The planner on the device: from a page table there to a plan's tables, without the host."""

from bough.plan.device.capacity import DeviceCapacity
from bough.plan.device.plan import DevicePlan

__all__ = ["DeviceCapacity", "DevicePlan"]
