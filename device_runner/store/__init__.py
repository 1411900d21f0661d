"""Models on the device: kept by their hash, chosen by one small file that is only ever replaced as a whole."""
