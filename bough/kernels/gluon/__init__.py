"""The Hopper backend: a plan's tiles as warp-specialised Gluon kernels."""
