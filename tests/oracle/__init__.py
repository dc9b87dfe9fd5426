"""Random spiking networks in plain torch against every integer engine. Nothing here uses the package's operators."""
