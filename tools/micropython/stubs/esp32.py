"""Stands in for the ESP32's module while memory is counted."""
