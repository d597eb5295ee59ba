"""Scores on volumes whose truth is known: degrade, restore, compare, average over seeds.

Read ``evaluation`` first, then ``experiment`` (one method on one volume) and ``truth`` (how a volume is degraded).
"""
