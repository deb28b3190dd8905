"""Pure tensor functions, independent of faces: cameras, rotations, normals, the rasteriser, shading, UV maps."""
