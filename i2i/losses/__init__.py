"""Losses are pure functions of tensors. Each docstring begins with the equation and its source."""
