"""The skin in texture space: the atlas of the face, and the mesh subdivided for its displacement."""
