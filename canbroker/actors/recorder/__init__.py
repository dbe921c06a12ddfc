"""The recorder actor: writes the frames of some channels to files."""
