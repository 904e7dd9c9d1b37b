"""From requests and answers to money: the most that a call can cost (``bounds``), and what it did cost (``metering``)."""
