"""Evidence that a result can be trusted: scores, comparisons of tiles with the whole, projections, pages.

Read ``evaluate/evaluation`` first (scores against a known truth), then ``verify/verification`` (tiles and the whole),
then ``mip/projection``. Nothing that produces a result belongs here.
"""
