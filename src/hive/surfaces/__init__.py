"""What clients reach: the front that judges every request, the listings, the metrics and the management application."""
