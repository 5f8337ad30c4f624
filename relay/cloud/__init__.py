"""What the cloud asks for: worklist actions, full images, the gateway's own tests, DICOMweb through the tunnel."""
