"""The command line ``cropeq``, with one file for each sub-command.

Read ``main`` first. A command parses its arguments, calls ``run`` or ``evidence``, and prints the result. Computations
and anything about the window do not belong here.
"""
