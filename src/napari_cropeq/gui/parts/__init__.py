"""What the dock widgets are made of: columns, choices, forms, curves, labels.

Each part shows something or asks for something. One that takes time is given its panel, which works in the background.
"""
