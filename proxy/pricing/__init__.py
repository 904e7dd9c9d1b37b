"""From requests and answers to money: the most a call can cost (``bounds``), what it did cost (``metering``)."""
