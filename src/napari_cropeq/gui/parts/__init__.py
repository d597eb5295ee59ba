"""Parts of the dock widgets: columns, choices, forms, curves, labels.

Each part shows something or asks for something. A part with slow work gets its panel, which runs it in the background.
"""
