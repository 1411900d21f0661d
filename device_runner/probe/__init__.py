"""Measures a bundle on the machine it is on: answers, times, memory, and the state of that machine meanwhile."""
