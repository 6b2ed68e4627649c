"""Unikernel images: what an image says about itself, read by a bounded parser of our own."""
