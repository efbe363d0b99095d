"""A lab host as a real machine: its root file system with a kernel, under QEMU. For what a container cannot show."""
