"""What privacy claims rest on: gradients, clip, noise, and the accountants of their cost."""
