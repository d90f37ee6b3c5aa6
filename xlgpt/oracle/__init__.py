"""What every range must show, computed by NumPy: the forward pass, the text written, and one module for each view."""
