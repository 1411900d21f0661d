"""Where frames come from: one grammar of addresses, one child process per source, one supervisor."""
