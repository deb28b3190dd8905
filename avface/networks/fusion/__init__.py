"""Predictions combined with observations: landmark weights, adaptation to the clip, audio-visual synchronisation."""
