"""What the servers are given to do: a module for each row of issue 5's table, giving results."""
