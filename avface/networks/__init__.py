"""Neural networks: coarse stage, lips, detail, landmark correction, and what fuses them with what was observed."""
