"""Pictures that requests name: in the request itself, in allowed directories, on allowed hosts."""
