"""The processor that computes: which one, whether its tiles have the same bits, and what goes there and back.

Read ``device`` first, then ``exactness``.
"""
