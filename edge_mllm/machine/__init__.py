"""What this machine is and has, and what opens the libraries that compute."""
