"""What the microscope would have acquired of a result: its forward model, the step that uses it, and the comparison.

Read ``forward_model`` first, then ``consistency`` and ``agreement``; ``back_projection`` adds back what a result lacks.
"""
