"""The outside of the open head: ears, scalp, neck and the skin's texture coordinates."""
