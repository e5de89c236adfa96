"""The API: what a Pooler is, what the world around it looks like, and the words the operator uses for both.

Pure data and pure functions: no file, no network, no clock. Every other room of the operator imports this one and
it imports none of them (of the data plane it reads the catalogue of settings alone).
"""
