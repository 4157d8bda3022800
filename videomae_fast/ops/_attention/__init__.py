"""Other libraries' attention, and which one serves a shape on a device."""
