"""What may be wrong with a data set: found, and shown."""
