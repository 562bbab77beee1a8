"""Any table by a mapping file, and the first draft of one."""
