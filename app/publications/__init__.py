"""Catalogues that are published: what a publication is, what one changes, and the topic that carries them to all
workers.

One is published whole, under the next number, or not at all; none is ever taken back, because runs pin versions.
"""
