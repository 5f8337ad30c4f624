"""The cloud's actions: worklist items, full images, the gateway's own tests, DICOMweb by the hybrid connection."""
