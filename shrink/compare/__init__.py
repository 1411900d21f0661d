"""Whether a new run is as good as an old one: by what was answered to every image, bytes, time and instructions."""
