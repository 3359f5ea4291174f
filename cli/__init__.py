"""The command line of mmfe: parses, calls the library, prints."""
