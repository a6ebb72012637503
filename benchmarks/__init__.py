"""Benchmarks of the code itself: attention kernels, harness overhead, generation of samples."""
