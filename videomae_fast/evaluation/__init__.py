"""What a trained model is worth: accuracy over many views, tables by class, features, probes."""
