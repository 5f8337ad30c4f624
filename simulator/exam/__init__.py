"""What is on the machine: tissue, phantom images and their encodings, the data sets of an exam, structured reports."""
