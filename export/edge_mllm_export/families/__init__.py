"""The families: everything the export knows about a kind of checkpoint, a file or a folder each."""
