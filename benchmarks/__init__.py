"""Measurements that back the claims of the project, kept as data; see README.md. Not part of the product."""
