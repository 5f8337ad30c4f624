"""DICOMweb, PS3.18: QIDO-RS, WADO-RS, WADO-URI, rendered resources and STOW-RS."""
