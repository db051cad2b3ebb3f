"""Data sets: photos with reference captions and splits."""

from showtell.data.dataset import Dataset, PhotoStore
from showtell.data.flickr8k import read_flickr8k

__all__ = ["Dataset", "PhotoStore", "read_flickr8k"]
