"""Damaged files, thousands of them: each is refused in a sentence, or gives what the undamaged one gives.

Read ``edits`` first: damage as data. ``strategies`` draws it, ``images``, ``chunks``, ``models``, ``stores`` and
``names`` say for each kind of file what is damaged and what is right, and ``worker`` runs a batch of cases in a process
with limits. ``make test`` runs some cases of each kind, and ``make soak`` many (benchmarks/fuzz.py).
"""
