"""The servers' works: a module for each row of the edge benchmark's table, giving results."""
