"""Keys and the rights they give: pure rules."""
