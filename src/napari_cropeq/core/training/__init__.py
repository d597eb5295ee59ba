"""Self-supervised training: from a volume to the weights of a network.

Read ``config`` first (every setting), then ``training`` (the loop), then ``patches`` (where the pairs come from).
Nothing here knows files of images; a training is kept in a ``checkpoint``.
"""
