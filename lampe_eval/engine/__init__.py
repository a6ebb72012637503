"""Engines that run samples on a model: in this process, or as replicas on many devices with Ray."""
