"""Services that stand in for those around a site that the product does not bring: Service Bus, blob storage, a proxy.

Complete enough for the official clients, and told to misbehave where that is what a test is about. Typed as strictly as
the product. What a site proves itself with is in `gateway.simulator`.
"""
