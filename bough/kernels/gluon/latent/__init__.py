"""Kernels over latents: one stored row is key and value, for all query heads of its group."""
