"""Self-supervised training: from a volume to the weights of a network.

Read ``config`` first (every setting), then ``training`` (the loop), then ``patches`` (which draws the batches).
Image files do not belong here; an unfinished training is saved in a ``checkpoint``.
"""
