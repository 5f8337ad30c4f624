#!/bin/sh
# Guess: a lossless encoder gives a 16-bit array back as it was, or refuses it.
# Seen:  `encode_array` derives the precision from the largest value. A 16-bit frame with no value above 255 becomes a
#        codestream of 8 bits that holds half of the frame with a zero between its pixels. No error, no warning.
# With:  pyjpegls 1.5.1, CharLS inside.
# Means: a dark slice of a tomosynthesis, or a frame of air, is lost in a file that says "lossless". `encode_buffer`
#        takes the precision as an argument and is right.
# Here:  each frame is decoded again and compared before it counts (pacs/images/compress.py); one that differs is
#        refused.
. "$(dirname "$0")/setup"
packages pyjpegls==1.5.1 numpy==2.4.6

python <<'PYTHON'
import numpy as np
from jpeg_ls import decode_buffer, encode_array, encode_buffer


def comes_back(codestream: bytearray, frame: np.ndarray) -> bool:
    return bytes(decode_buffer(bytes(codestream))[0]) == frame.tobytes()


dark = np.arange(256, dtype="<u2").reshape(16, 16)  # 12 bits stored in 16 allocated, nothing above 255
bright = dark + 256

seen = {
    "encode_array, largest value 511": comes_back(encode_array(bright), bright),
    "encode_array, largest value 255": comes_back(encode_array(dark), dark),
    "encode_buffer of 12 bits, largest value 255": comes_back(encode_buffer(dark.tobytes(), 16, 16, 1, 12), dark),
}
for call, right in seen.items():
    print(f"{call}: {'the same frame' if right else 'ANOTHER frame'} comes back")
raise SystemExit(list(seen.values()) != [True, False, True])
PYTHON
