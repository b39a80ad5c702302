"""From a forest to a schedule: cost model, folding, division, assignment, and the plan."""

from bough.plan.plan import Plan, make_plan
from bough.plan.tables import PlanCapacity, PlanCapacityError

__all__ = ["Plan", "PlanCapacity", "PlanCapacityError", "make_plan"]
