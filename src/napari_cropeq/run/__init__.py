"""Whole jobs: train to a file, export, a batch, the live worker behind a window, work on several machines.

Read ``export`` first, then ``live`` (the worker that fills what is looked at). Each job is a generator that yields
its progress; who shows it, a terminal or a window, does not belong here.
"""
