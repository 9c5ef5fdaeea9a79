"""What a user installs: the wheel, the editable install, and the lists of what they need."""
