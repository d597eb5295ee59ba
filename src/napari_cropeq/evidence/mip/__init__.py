"""Maximum intensity projections of a result beside its source.

Read ``projection`` first, then ``figure``.
"""
