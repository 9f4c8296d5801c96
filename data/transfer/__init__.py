"""Files from the network and out of archives."""
