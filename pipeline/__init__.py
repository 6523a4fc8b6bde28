"""Keras' MNIST MLP as an experiment-tracked training pipeline."""
