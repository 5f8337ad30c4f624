"""OHIF: fetched through npm, unpacked, and set up for mammograms."""
