"""What a model costs on a device: shapes, work, memory, milliseconds."""
