"""Networks made ready to predict fast."""
