"""Attention over grouped heads in fp8: products take stored rows out of registers, as fp16."""
