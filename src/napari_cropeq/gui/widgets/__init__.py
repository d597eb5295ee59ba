"""The dock widgets, one file each, and the panels they are made from.

Read ``panel`` first (what every dock has), then ``train``. What a widget is made of lies in ``parts``.
"""
