"""The pictures of the page, each a function of facts that gives an SVG."""
