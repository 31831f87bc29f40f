"""What a device does in a second and holds: rates, profiles, calibration, energy, resident memory."""
