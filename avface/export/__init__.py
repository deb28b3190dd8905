"""Exporters: animated glTF and USD, ARKit curves, mesh sequences, overlay video."""
