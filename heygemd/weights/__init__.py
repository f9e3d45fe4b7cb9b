"""Reading weights out of files that strangers made, without running anything that the files say."""
