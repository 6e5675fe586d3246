"""The embedded teacher fine-tuned with a head on real labelled speech, then compressed with it."""
