"""What to trust in a result: the report of ``cropeq trust``.

Read ``report`` first.
"""
