"""Trained weights: saving, loading, converting, starting from them."""
