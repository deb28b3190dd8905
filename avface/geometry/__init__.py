"""Pure tensor functions: cameras, rotations, normals, the rasteriser. Knows nothing of faces."""
