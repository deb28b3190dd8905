"""Pure tensor functions: cameras, rotations, normals, the rasteriser, shading, UV maps. Knows nothing of faces."""
