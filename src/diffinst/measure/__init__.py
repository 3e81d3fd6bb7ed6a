"""What predictions cost."""
