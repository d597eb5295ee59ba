"""Evidence that a result can be trusted: scores, comparisons of tiles with the whole, projections, pages.

Read ``evaluate/evaluation`` first (scores against a known truth), then ``verify/verification`` (tiles compared with a
result computed as a whole), then ``mip/projection``. Code that produces results does not belong here.
"""
