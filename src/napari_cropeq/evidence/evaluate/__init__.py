"""Scores on volumes with a known truth: degrade, restore, compare, summarise over volumes.

Read ``evaluation`` first, then ``experiment`` (one method on one volume) and ``truth`` (how a volume is degraded).
"""
