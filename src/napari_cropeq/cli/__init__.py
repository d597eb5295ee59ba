"""The command line ``cropeq``: one file a sub-command.

Read ``main`` first. A command parses words, calls ``run`` or ``evidence`` and prints; work does not belong here, and
nothing here knows the window.
"""
