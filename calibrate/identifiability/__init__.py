"""What data can and cannot tell about parameters."""
