"""What a prediction holds and how it looks."""
