"""Inputs of training: features, views and pixels of photos, and batches of captions."""
