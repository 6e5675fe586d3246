"""A size that is a time: measured on random plans and fitted."""
