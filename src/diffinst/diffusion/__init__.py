"""The noise process over boxes."""
