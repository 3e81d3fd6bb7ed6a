"""Images and files."""
