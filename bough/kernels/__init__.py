"""Backends: each runs the tiles of a plan and merges their partials, and knows no other."""
