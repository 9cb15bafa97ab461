"""The service in a real systemd."""
