"""Where images come from: folders, the built-in synthetic set, published data sets."""
