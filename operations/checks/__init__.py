"""What proves a site hop by hop: ports, databases, line, certificates, an exam of our own."""
