"""Captioning of whole archives: inputs of any form, records into any number of outputs, and runs that resume.

    arguments -> sources (lazily, in order) -> Captioner.records -> sinks

Nothing here holds a list of all photos: memory does not grow with their number.
"""
