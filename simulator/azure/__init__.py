"""Stand-ins of what Azure has: Service Bus by AMQP 1.0, Hybrid Connections, Blob Storage, a proxy between."""
