"""What logs leave out, each with how it was found and how well."""
