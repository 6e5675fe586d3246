"""What a network's size is for any choice of units: parameters, multiply-accumulates or time."""
