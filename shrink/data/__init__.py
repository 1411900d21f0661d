"""Where labelled images come from, and whether they can be used.

`split.load` -> calibration and evaluation `images.Images` -> `stream.stream` -> batches -> `checks`.
"""
