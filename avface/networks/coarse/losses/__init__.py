"""Losses of the coarse stage. Each is 0 where prediction and truth agree, unless its docstring says otherwise."""
