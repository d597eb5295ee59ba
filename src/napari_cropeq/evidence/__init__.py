"""What shows that a result can be trusted: scores, tiles against the whole, projections, pages.

Read ``evaluate/evaluation`` first (scores on a known truth), then ``verify/verification`` (tiles against the whole),
then ``mip/projection``. Nothing that produces a result belongs here.
"""
