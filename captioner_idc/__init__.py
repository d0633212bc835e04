"""Any captioner behind one interface: two images in, a sentence out."""
