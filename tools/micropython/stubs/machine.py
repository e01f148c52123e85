"""Stands in for the ESP32's module while memory is counted: device.py needs it to be there."""
