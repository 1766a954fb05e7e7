"""The parts of the report page: reading a run folder, thinning, drawing, and the HTML of each section."""
