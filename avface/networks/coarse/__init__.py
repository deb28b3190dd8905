"""Networks of the coarse stage: shape, pose, light and expression of windows of frames, from picture and sound."""
