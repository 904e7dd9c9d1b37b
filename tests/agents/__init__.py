"""Real clients, unmodified, against a broker and a local provider: ``make clients``. See ``__main__``."""
