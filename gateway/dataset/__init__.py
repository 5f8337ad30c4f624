"""DICOM data sets as they travel and as they are kept: bytes, character sets, DICOM JSON."""
