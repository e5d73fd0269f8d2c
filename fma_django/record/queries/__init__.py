"""Every read of the record that is more than a look-up by id."""
