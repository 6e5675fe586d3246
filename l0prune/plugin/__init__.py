"""The plugin seam: what a plugin gives, and how plugins are found."""
