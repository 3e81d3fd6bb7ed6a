"""What writes results for other programs, one file for each format."""
