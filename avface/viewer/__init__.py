"""The page that shows a capture in a browser: video and head side by side, in one file."""
