"""Maximum intensity projections of a result beside those of its source.

Read ``projection`` first, then ``figure``.
"""
