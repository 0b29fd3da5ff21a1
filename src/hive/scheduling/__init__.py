"""Who waits, who is served next, and by which engine: state in, `now` in, decisions out."""
