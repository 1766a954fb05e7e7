"""Losses: pure functions of tensors, the equation beside the formula."""
