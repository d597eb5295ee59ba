"""The FWHM of the slice profile that a volume suggests.

Read ``suggestion`` first; ``spectrum`` measures the power that it compares.
"""
