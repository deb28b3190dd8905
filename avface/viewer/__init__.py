"""A self-contained HTML page that plays a capture: video and head side by side."""
