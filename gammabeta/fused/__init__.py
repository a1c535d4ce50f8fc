"""Training gamma and beta of a CIFAR ResNet as a static program, without autograd.

plan.py lays a network out; program.py is the mathematics in plain torch, the slow twin; the faster
programs override its four passes with kernels of their own.
"""
