"""Images and event recordings to run networks on."""
