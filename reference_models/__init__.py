"""Small diffusion models trained from nothing on drawn shapes, so that tests judge meaning without a download."""
