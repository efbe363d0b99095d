"""What the speed and loss claims of this repository stand on: the load generator, the bench and the demo."""
