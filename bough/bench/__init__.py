"""Measurements: every contestant on the same forest, checked first, the roofline beside it."""
