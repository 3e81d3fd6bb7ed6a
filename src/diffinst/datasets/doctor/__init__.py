"""Finds what would break or spoil training on a dataset, and repairs a copy."""
