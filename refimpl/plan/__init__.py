"""What trains, by which rules, and which methods combine."""
