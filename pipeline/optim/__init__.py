"""RMSprop as Keras defines it, and its relatives."""
