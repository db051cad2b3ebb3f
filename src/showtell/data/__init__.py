"""Data sets: photos with reference captions and splits, read from any of the usual layouts.

dataset = read("flickr8k")  # a folder or a caption file
dataset.split("train")[0].captions
"""

from showtell.data.dataset import Dataset, joined
from showtell.data.layouts import LAYOUTS, list_entries, read, recognise
from showtell.data.layouts.base import Columns
from showtell.data.photos import PhotoStore

__all__ = ["LAYOUTS", "Columns", "Dataset", "PhotoStore", "joined", "list_entries", "read", "recognise"]
