"""The world around a gateway, to prove one with: a mammography machine, its images, the cloud, a whole site at once.

Production code, because a site proves itself with it; but nothing of the services imports it.
"""
