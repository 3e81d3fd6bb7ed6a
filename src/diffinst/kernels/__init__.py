"""What exists for speed alone; the network computes the same without it."""
