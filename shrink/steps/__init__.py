"""The steps of an export: the code that joins the stages, which never import each other.

One file per step, in the order run: loading, capturing, calibrating, writing, verifying, timing; then
reporting and bundling turn what they found into records. Each step is a function of the values of the
steps before it; the story that calls them is `shrink.pipeline`.
"""
