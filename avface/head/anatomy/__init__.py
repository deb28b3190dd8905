"""Measures of a head's anatomy, and the limits that they are held against."""
