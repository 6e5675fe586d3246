"""Hard Concrete gates, the networks they stand in, and the controllers that close them."""
