"""What can be pruned in a network: a forward pass is followed; units that live and die together make groups."""
