"""The planner on the device: from a page table there to a plan's tables, without the host."""

from bough.plan.device.plan import DeviceCapacity, DevicePlan

__all__ = ["DeviceCapacity", "DevicePlan"]
