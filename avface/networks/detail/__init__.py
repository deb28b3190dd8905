"""The fine stage: displacement of the skin in texture space."""
