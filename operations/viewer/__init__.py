"""Installation of the viewer OHIF: fetched through npm, unpacked, and set up for mammograms."""
