"""From pictures to instances."""
