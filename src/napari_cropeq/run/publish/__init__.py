"""Publish a model as a package of bioimage.io, which other programs run without this one.

Read ``publish`` first (what a package is made of), then ``stack_network`` (what its network computes), then
``description`` and ``readme`` (what it says of itself). The packages of the extra ``bioimageio`` are imported only when
a model is published.
"""
