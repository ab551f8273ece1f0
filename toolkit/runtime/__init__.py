"""Running what was compiled, and making its input of a picture. Needs neither torch nor TVM."""
