"""Ways between other libraries and this one: each file is the only importer of its library."""
