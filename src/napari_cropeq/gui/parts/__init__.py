"""What the dock widgets are made of: forms, curves, tables, labels.

Each part shows something or asks for something, and signals; none of them starts a job.
"""
