"""One module per family of file formats; `data.readers` is their door."""
