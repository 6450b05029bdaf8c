"""Tests of the vllm backend with a real engine, on the CPU."""
