"""Attacks in small: each must win where it should and lose against Discreet."""
