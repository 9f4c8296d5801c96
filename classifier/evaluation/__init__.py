"""What scores are worth: metrics, calibration, operating points, subgroups, pages."""
