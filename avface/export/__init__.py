"""What users take away: animated glTF and USD, ARKit curves, meshes, the overlay video."""
