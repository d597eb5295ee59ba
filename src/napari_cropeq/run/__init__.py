"""Whole jobs: train to a file, export, a batch, the live worker behind a window, work on several machines.

Read ``export`` first (one volume), then ``batch`` and ``naming`` (what ``cropeq export`` runs), then ``live`` (the
worker that fills what is looked at). Each job is a generator that yields its progress; the terminal or window that
shows it does not belong here.
"""
