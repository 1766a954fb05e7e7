"""A folder for any web server: a page that translates pictures in the visitor's browser. `page/` has its sources."""
