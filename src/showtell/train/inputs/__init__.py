"""What training reads of photos and captions."""
