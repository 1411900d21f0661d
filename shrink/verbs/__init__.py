"""The verbs of the command line. Each parses, calls one function, prints; imports nothing heavy before it must."""
