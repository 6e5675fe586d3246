"""HuBERT, WavLM and wav2vec 2.0 encoders, and the units in them that can be pruned."""
