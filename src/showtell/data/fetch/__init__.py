"""Downloads data sets."""
