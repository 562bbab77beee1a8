"""Where logs come from, as blocks of lines."""
