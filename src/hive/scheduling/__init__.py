"""Which ticket is served next, and by which engine: state in, `now` in, decisions out."""
