"""Whole jobs: train to a file, export, a batch, the worker behind a window, work on several machines.

Read ``export`` first (one volume), then ``batch`` and ``naming`` (what ``cropeq export`` runs), then ``live`` (the
worker that computes the tiles in view). Each job is a generator that yields its progress; code that displays the
progress does not belong here.
"""
