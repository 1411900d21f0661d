"""Where a bundle runs: this machine, one over ssh or adb, or an emulated one.

A board is data: the words of a local command that runs a program there, and of one that copies a file there.
`contact.py` is the program that is run there first; `visit.py` talks with it.
"""
