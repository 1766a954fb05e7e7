"""Pictures larger than memory through a convolutional generator: the same result as if they had fitted.

The layers run over bands of rows, one pass of the picture after another; a normalisation by the statistics of the
picture takes those of all of it. The input of the next pass waits in a spool, in memory or in a file.
"""

from i2i.inference.streaming.picture import Streamer, stream_bands, stream_picture, stream_tensor, streamable
from i2i.inference.streaming.run import stream

__all__ = ["Streamer", "stream", "stream_bands", "stream_picture", "stream_tensor", "streamable"]
